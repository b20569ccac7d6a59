local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
-- Both with one value: a reset is honoured only together with a request to look.
local now = "By Argo CD at: " .. os.date("!%Y-%m-%dT%X")
obj.metadata.annotations["reconcile.fluxcd.io/requestedAt"] = now
obj.metadata.annotations["reconcile.fluxcd.io/resetAt"] = now
return obj
