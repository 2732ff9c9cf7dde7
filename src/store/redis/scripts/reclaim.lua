-- Blobs that no job refers to, and who is deleting them. A deletion that was begun and not ended in its time is anybody's again.
-- ARGV: 'list' | 'take', key, time allowed in ms | 'deleted', key | 'failed', key
local act, key, at = ARGV[1], ARGV[2], now()
if act == 'list' then
  for _, left in ipairs(call('ZRANGEBYSCORE', P .. 'deleting', '-inf', at)) do
    call('ZREM', P .. 'deleting', left)
    if call('EXISTS', P .. 'refs:' .. left) == 0 then call('SADD', P .. 'unreferenced', left) end
  end
  return call('SMEMBERS', P .. 'unreferenced')
end
if act == 'take' then
  if call('SREM', P .. 'unreferenced', key) == 0 then return 0 end
  call('ZADD', P .. 'deleting', at + tonumber(ARGV[3]), key)
  return 1
end
local mine = call('ZREM', P .. 'deleting', key)
if act == 'failed' and mine == 1 then call('SADD', P .. 'unreferenced', key) end
return mine
