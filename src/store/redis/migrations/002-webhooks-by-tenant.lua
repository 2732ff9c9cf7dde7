-- What waits for receivers goes from one queue a host to one a tenant and host.
--   before: hooks:hosts      zset of hosts by the time of their first           hooks:due:HOST           zset of deliveries by time
--   after:  hooks:first      zset of tenants by the time of their first         hooks:at:TENANT:HOST     zset of deliveries by time
--           hooks:first:TENANT  zset of a tenant's hosts by the time of their first
local host = redis.call('ZRANGE', P .. 'hooks:hosts', 0, 0)[1]
if not host then return 0 end
local from = P .. 'hooks:due:' .. host
local due = redis.call('ZRANGE', from, 0, MOST - 1, 'WITHSCORES')
for i = 1, #due, 2 do
  local id, at = due[i], due[i + 1]
  local tenant = redis.call('HGET', P .. 'hook:' .. id, 'tenant')
  if tenant then
    redis.call('ZADD', P .. 'hooks:at:' .. #tenant .. ':' .. tenant .. ':' .. host, at, id)
    -- They come in the order of their times: the first is the earliest.
    for key, member in pairs({[P .. 'hooks:first:' .. tenant] = host, [P .. 'hooks:first'] = tenant}) do
      local known = redis.call('ZSCORE', key, member)
      if not known or tonumber(at) < tonumber(known) then redis.call('ZADD', key, at, member) end
    end
  end
  redis.call('ZREM', from, id)
end
if redis.call('EXISTS', from) == 0 then redis.call('ZREM', P .. 'hooks:hosts', host) end
return math.max(1, #due / 2)
