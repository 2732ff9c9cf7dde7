-- API keys: a hash each, and a zset of their ids by time of creation. A key is replaced once, and only one that works.
-- ARGV: 'add', id, created, facts, expires or '', and for one that replaces: the other's id, when that ends, now
--     | 'revoke', id, now | 'used', (id, time) ... | 'find', id | 'list'
-- Answers for 'add' 1 or 0; for 'find' and 'revoke' a key or false, for 'list' all keys: {facts, expires, revoked, used, replaced by}.
local act = ARGV[1]
local function key(id) return P .. 'key:' .. id end
local function found(id)
  local one = call('HMGET', key(id), 'facts', 'expires', 'revoked', 'used', 'replaced')
  return one[1] and one
end
if act == 'find' then return found(ARGV[2]) end
if act == 'list' then
  local keys = {}
  for _, id in ipairs(call('ZREVRANGE', P .. 'keys', 0, -1)) do keys[#keys + 1] = found(id) end
  return keys
end
if act == 'revoke' then
  if call('EXISTS', key(ARGV[2])) == 1 then call('HSETNX', key(ARGV[2]), 'revoked', ARGV[3]) end
  return found(ARGV[2])
end
if act == 'used' then
  for i = 2, #ARGV, 2 do
    local used = call('HMGET', key(ARGV[i]), 'facts', 'used')
    if used[1] and tonumber(used[2] or '0') < tonumber(ARGV[i + 1]) then call('HSET', key(ARGV[i]), 'used', ARGV[i + 1]) end
  end
  return 1
end
-- The same command once more, after its answer was lost.
if call('EXISTS', key(ARGV[2])) == 1 then return 1 end
if ARGV[6] then
  local old = call('HMGET', key(ARGV[6]), 'facts', 'expires', 'revoked', 'replaced')
  if not old[1] or old[3] or old[4] or (old[2] and tonumber(old[2]) <= tonumber(ARGV[8])) then return 0 end
  local ends = tonumber(ARGV[7])
  if old[2] then ends = math.min(ends, tonumber(old[2])) end
  call('HSET', key(ARGV[6]), 'replaced', ARGV[2], 'expires', ends)
end
call('HSET', key(ARGV[2]), 'facts', ARGV[4])
if ARGV[5] ~= '' then call('HSET', key(ARGV[2]), 'expires', ARGV[5]) end
call('ZADD', P .. 'keys', ARGV[3], ARGV[2])
return 1
