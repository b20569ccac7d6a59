if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
-- Nothing waits without a plan; an annotation that names none approves nothing.
if obj.status ~= nil and obj.status.plan ~= nil then
  obj.metadata.annotations["cce.nodepools.dev/approved-plan"] = obj.status.plan.id
end
return obj
