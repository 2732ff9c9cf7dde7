-- Jobs that something is owed to, the longest first; see chains.lua. ARGV: most. Answers {id ...}.
local ids = {}
for _, place in ipairs(call('ZRANGE', P .. 'owed', 0, ARGV[1] - 1)) do
  local id = id_of(place)
  if call('HEXISTS', key_of(id), 'owed') == 1 then ids[#ids + 1] = id else call('ZREM', P .. 'owed', place) end
end
return ids
