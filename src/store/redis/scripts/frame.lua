-- Put after every script. One step that cannot be made costs the others nothing.
local replies = {}
for i, args in ipairs(STEPS) do
  local made, reply = pcall(step, args)
  if made then
    replies[i] = reply or false
  else
    -- Before Redis 7 what the server itself refuses begins with the line of the script.
    local message = string.gsub(type(reply) == 'table' and reply.err or reply, '^@[%w_]+: ?%d+: %-', '')
    -- It has become a replica and nothing is written: the client has to hear that of the whole command, and looks for the primary.
    if string.find(message, '^READONLY') then return redis.error_reply(message) end
    replies[i] = {err = message}
  end
end
settle()
-- As unpack.ts reads them.
return cmsgpack.pack(replies)
