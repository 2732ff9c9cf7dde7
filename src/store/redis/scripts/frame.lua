-- Put after every script. One step that cannot be made costs the others nothing.

-- Of a step; as one table of its length, where Lua takes so many.
local function arguments(at)
  local count = PACKED[at]
  if count <= AT_ONCE then return {unpack(PACKED, at + 1, at + count)} end
  local list = {}
  for i = 1, count do list[i] = PACKED[at + i] end
  return list
end

local replies = {}
for i, at in ipairs(STEPS) do
  local made, reply = pcall(step, arguments(at))
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
