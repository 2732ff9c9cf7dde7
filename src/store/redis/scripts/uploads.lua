-- Uploads, and which jobs need them. Always true: the bytes of an upload are deleted only when its record says so, and a record goes after its bytes.
-- States: receiving, whole, released (kept for jobs that have not ended), deleting.
-- ARGV: 'begin', id, tenant, bytes, expires, '1' where resumable, facts, most uploads, most bytes
--     | 'count', id, bytes, expires, most bytes, facts or '', state afterwards
--     | 'get', id | 'release', id | 'mark', now | 'drop', id | 'purged', id of a job that is purged already
-- Answers {'done'}, {'unknown'}, {'uploads', number of them}, {'bytes', sum}; for 'get' {tenant, state, expires, resumable, facts} or false; for 'mark'
-- {1 where there may be more, ids to delete ...}.
local act, id = ARGV[1], ARGV[2]
local key = P .. 'upload:' .. id

if act == 'get' then
  local found = call('HMGET', key, 'tenant', 'state', 'expires', 'resumable', 'facts')
  return found[1] and found
end

if act == 'begin' then
  local tenant, bytes = ARGV[3], tonumber(ARGV[4])
  -- The same command once more, after its answer was lost.
  if call('EXISTS', key) == 1 then return {'done'} end
  local count = tonumber(call('HGET', P .. 'uploads:count', tenant) or '0')
  if count >= tonumber(ARGV[8]) then return {'uploads', count} end
  local sum = tonumber(call('HGET', P .. 'uploads:bytes', tenant) or '0')
  if sum + bytes > tonumber(ARGV[9]) then return {'bytes', sum} end
  call('HSET', key, 'tenant', tenant, 'state', 'receiving', 'bytes', bytes, 'expires', ARGV[5], 'resumable', ARGV[6], 'facts', ARGV[7])
  call('ZADD', P .. 'uploads:expiring', ARGV[5], id)
  call('HINCRBY', P .. 'uploads:count', tenant, 1)
  call('HINCRBY', P .. 'uploads:bytes', tenant, bytes)
  return {'done'}
end

if act == 'count' then
  local was = call('HMGET', key, 'tenant', 'state', 'bytes', 'facts')
  if ARGV[7] == 'whole' and was[2] == 'whole' and was[4] == ARGV[6] then return {'done'} end
  if was[2] ~= 'receiving' then return {'unknown'} end
  local sum = tonumber(call('HGET', P .. 'uploads:bytes', was[1]) or '0') - tonumber(was[3])
  if sum + tonumber(ARGV[3]) > tonumber(ARGV[5]) then return {'bytes', sum} end
  call('HSET', key, 'state', ARGV[7], 'bytes', ARGV[3], 'expires', ARGV[4])
  if ARGV[6] ~= '' then call('HSET', key, 'facts', ARGV[6]) end
  call('ZADD', P .. 'uploads:expiring', ARGV[4], id)
  call('HSET', P .. 'uploads:bytes', was[1], exact(sum + tonumber(ARGV[3])))
  return {'done'}
end

if act == 'release' then
  local state = call('HGET', key, 'state')
  if state ~= 'receiving' and state ~= 'whole' then return {'unknown'} end
  let_go(id)
  return {'done'}
end

if act == 'purged' then
  local place = call('HGET', key_of(id), 'place')
  if place then uploads_purged(id, place) end
  return {'done'}
end

if act == 'mark' then
  local expired = call('ZRANGEBYSCORE', P .. 'uploads:expiring', '-inf', ARGV[2], 'LIMIT', 0, 200)
  for _, one in ipairs(expired) do let_go(one) end
  return {#expired == 200 and 1 or 0, unpack(call('SRANDMEMBER', P .. 'uploads:deleting', 1000))}
end

if call('SREM', P .. 'uploads:deleting', id) == 1 then
  local was = call('HMGET', key, 'tenant', 'bytes')
  -- Not a minus sign: that of nothing is '-0', which Redis does not take.
  call('HINCRBY', P .. 'uploads:bytes', was[1], 0 - tonumber(was[2]))
  if call('HINCRBY', P .. 'uploads:count', was[1], -1) == 0 then
    call('HDEL', P .. 'uploads:count', was[1])
    call('HDEL', P .. 'uploads:bytes', was[1])
  end
  call('DEL', key, P .. 'uses:' .. id, P .. 'needs:' .. id)
end
return {'done'}
