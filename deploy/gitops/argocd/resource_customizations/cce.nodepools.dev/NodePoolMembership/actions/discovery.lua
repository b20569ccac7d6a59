local actions = {}

local suspended = obj.spec.suspend == true
local failures = obj.status ~= nil and obj.status.failures ~= nil and #obj.status.failures > 0
local stalled = false
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    if condition.type == "Stalled" and condition.status == "True" then
      stalled = true
    end
  end
end

actions["reconcile"] = {["displayName"] = "Look again now", ["iconClass"] = "fa fa-fw fa-sync"}
actions["suspend"] = {["disabled"] = suspended, ["displayName"] = "Suspend", ["iconClass"] = "fa fa-fw fa-pause"}
actions["resume"] = {
  ["disabled"] = not suspended,
  ["displayName"] = "Resume (may wipe servers)",
  ["iconClass"] = "fa fa-fw fa-play"
}
actions["reset"] = {
  ["disabled"] = not (failures or stalled),
  ["displayName"] = "Reset failures (may wipe servers again)",
  ["iconClass"] = "fa fa-fw fa-redo"
}
return actions
