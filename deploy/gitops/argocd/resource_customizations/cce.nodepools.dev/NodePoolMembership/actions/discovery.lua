local actions = {}

local suspended = obj.spec.suspend == true
local failures = obj.status ~= nil and obj.status.failures ~= nil and #obj.status.failures > 0
local waits = false
if obj.spec.approval == "Manual" and obj.status ~= nil and obj.status.plan ~= nil then
  local annotations = obj.metadata.annotations or {}
  local approved = annotations["cce.nodepools.dev/approved-plan"] == obj.status.plan.id
  waits = obj.status.observedGeneration == obj.metadata.generation and not approved
end
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
actions["approve"] = {
  ["disabled"] = not waits,
  ["displayName"] = "Approve the plan that waits (wipes its servers)",
  ["iconClass"] = "fa fa-fw fa-check"
}
return actions
