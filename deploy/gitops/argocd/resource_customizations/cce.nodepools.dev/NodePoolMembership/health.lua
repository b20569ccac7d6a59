local health = {status = "Progressing", message = "Waiting for the operator"}

if obj.metadata.deletionTimestamp ~= nil then
  health.message = "Being deleted"
end

local seen = obj.status ~= nil and obj.status.observedGeneration == obj.metadata.generation
if not seen or obj.status.conditions == nil then
  return health
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end

local ready = conditions["Ready"]
if ready == nil then
  return health
end
health.message = ready.reason .. ": " .. (ready.message or "")

if obj.metadata.deletionTimestamp ~= nil then
  return health
end
if conditions["Stalled"] ~= nil and conditions["Stalled"].status == "True" then
  health.status = "Degraded"
elseif ready.reason == "Suspended" then
  health.status = "Suspended"
elseif ready.status == "True" then
  health.status = "Healthy"
end
return health
