-- What is to be told, and what came of it.
-- ARGV: 'take', now, lease in ms, most, most of one host, hosts that have some on their way and how many (host, number) ...
--     | 'settle', now, id, attempts, 'delivered' or 'retry' or 'dead', time of the next try or '', error
--     | 'list', tenant, '1' for dead ones, most, place of the last one known or '' | 'replay', now, tenant, id
-- Answers for 'take' {when something is due next or false, delivery ...}, for 'list' {place of the last one or false, delivery ...}, for 'replay' one or false.
local FIELDS = {'id', 'url', 'host', 'status', 'tenant', 'job', 'state', 'created', 'since', 'attempts', 'dead', 'error'}
local function hook_of(id) return call('HMGET', P .. 'hook:' .. id, unpack(FIELDS)) end

local act, at = ARGV[1], ARGV[2]
if act == 'take' then
  local most, per_host, busy, full = tonumber(ARGV[4]), tonumber(ARGV[5]), {}, 0
  for i = 6, #ARGV, 2 do
    busy[ARGV[i]] = tonumber(ARGV[i + 1])
    if busy[ARGV[i]] >= per_host then full = full + 1 end
  end
  local answer = {false}
  local hosts = call('ZRANGE', P .. 'hooks:hosts', 0, most + full, 'WITHSCORES')
  for i = 1, #hosts, 2 do
    local host = hosts[i]
    if tonumber(hosts[i + 1]) > tonumber(at) then
      answer[1] = hosts[i + 1]
      return answer
    end
    local room = math.min(most - #answer + 1, per_host - (busy[host] or 0))
    if room > 0 then
      for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'hooks:due:' .. host, '-inf', at, 'LIMIT', 0, room)) do
        call('HINCRBY', P .. 'hook:' .. id, 'attempts', 1)
        call('ZADD', P .. 'hooks:due:' .. host, at + ARGV[3], id)
        answer[#answer + 1] = hook_of(id)
      end
      hook_touch(host)
    end
  end
  return answer
end

if act == 'settle' then
  local id, how = ARGV[3], ARGV[5]
  local key = P .. 'hook:' .. id
  local hook = call('HMGET', key, 'attempts', 'dead', 'host', 'job', 'tenant')
  if hook[1] ~= ARGV[4] or hook[2] ~= '0' then return 0 end
  if how == 'retry' then
    call('HSET', key, 'error', ARGV[7])
    call('ZADD', P .. 'hooks:due:' .. hook[3], ARGV[6], id)
    hook_touch(hook[3])
    return 1
  end
  hook_leave(id, hook[4], hook[3], at)
  call('ZREM', P .. 'hooks:of:' .. hook[5], id)
  if how == 'delivered' then
    call('DEL', key)
    call('SREM', P .. 'hooks:ids:' .. hook[4], id)
  else
    call('HSET', key, 'dead', 1, 'error', ARGV[7])
    call('ZADD', P .. 'hooks:dead:' .. hook[5], call('INCR', P .. 'hooks:seq'), id)
  end
  return 1
end

if act == 'list' then
  local below = ARGV[5] == '' and '+inf' or '(' .. ARGV[5]
  local list = P .. (ARGV[3] == '1' and 'hooks:dead:' or 'hooks:of:') .. ARGV[2]
  local found = call('ZREVRANGEBYSCORE', list, below, '-inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4])
  local answer = {found[#found] or false}
  for i = 1, #found, 2 do answer[#answer + 1] = hook_of(found[i]) end
  return answer
end

local tenant, id = ARGV[3], ARGV[4]
local key = P .. 'hook:' .. id
local hook = call('HMGET', key, 'tenant', 'dead', 'job', 'host')
if hook[1] ~= tenant then return false end
if hook[2] == '1' then
  call('HSET', key, 'dead', 0, 'attempts', 0, 'since', at)
  call('ZREM', P .. 'hooks:dead:' .. tenant, id)
  hook_enter(id, hook[3], hook[4], at)
  call('ZADD', P .. 'hooks:of:' .. tenant, call('GET', P .. 'hooks:seq'), id)
end
return hook_of(id)
