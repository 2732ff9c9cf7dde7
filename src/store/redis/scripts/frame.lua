-- Put after every script. One step that cannot be made costs the others nothing.
local replies = {}
for i, args in ipairs(STEPS) do
  local made, reply = pcall(step, args)
  if made then
    replies[i] = reply or false
  elseif type(reply) == 'table' then
    replies[i] = reply
  else
    replies[i] = {err = reply}
  end
end
settle()
return replies
