-- What is to be told, and what came of it.
-- ARGV: 'take', now, lease in ms, most, most of one host, most of one tenant, those under way (tenant, host) ...
--     | 'settle', now, id, attempts, 'delivered' or 'retry' or 'dead', time of the next try or '', error
--     | 'list', tenant, '1' for dead ones, most, place of the last one known or '' | 'replay', now, tenant, id
-- Answers for 'take' {when something is due next or false, how many gave way since the last, delivery ...}, for 'list' {place of the last one or false, delivery ...}, for 'replay' one or false.
local FIELDS = {'id', 'url', 'host', 'status', 'tenant', 'job', 'state', 'created', 'since', 'attempts', 'dead', 'error'}
local function hook_of(id) return call('HMGET', P .. 'hook:' .. id, unpack(FIELDS)) end

local act, at = ARGV[1], ARGV[2]
if act == 'take' then
  local most, per_host, per_tenant = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
  local hosts, tenants, under_way, distinct = {}, {}, 0, 0
  for i = 7, #ARGV, 2 do
    local tenant, host = ARGV[i], ARGV[i + 1]
    under_way = under_way + 1
    if not tenants[tenant] then distinct = distinct + 1 end
    tenants[tenant] = (tenants[tenant] or 0) + 1
    hosts[host] = (hosts[host] or 0) + 1
  end
  local gave_way = call('GET', P .. 'hooks:gave_way')
  if gave_way then call('DEL', P .. 'hooks:gave_way') end
  local answer = {false, tonumber(gave_way or 0)}

  -- Who is due, of the first so many.
  local function due_of(key, many)
    local found, names = call('ZRANGE', key, 0, many - 1, 'WITHSCORES'), {}
    for i = 1, #found, 2 do
      if tonumber(found[i + 1]) > tonumber(at) then
        if not answer[1] or tonumber(found[i + 1]) < tonumber(answer[1]) then answer[1] = found[i + 1] end
        break
      end
      names[#names + 1] = found[i]
    end
    return names
  end

  -- What those of a line have, one at a time: who has the fewest is next, and nobody comes to more than `top`.
  local function by_turns(line, counts, top, next_of)
    local many, i = 0, 0
    return function()
      while many < top do
        i = i + 1
        local name = line[i]
        if not name then
          many, i = many + 1, 0
        elseif (counts[name] or 0) == many then
          local one = next_of(name)
          if one then
            counts[name] = many + 1
            return one
          end
        end
      end
    end
  end

  -- So many hosts have no room at the most when all is given.
  local full = math.floor((under_way + most) / per_host)
  local function deliveries_of(tenant)
    local lists = {}
    local line = due_of(P .. 'hooks:first:' .. tenant, per_tenant + full + 1)
    return by_turns(line, hosts, per_host, function(host)
      if not lists[host] then lists[host] = {call('ZRANGEBYSCORE', hooks_at(tenant, host), '-inf', at, 'LIMIT', 0, per_host), 0} end
      local list = lists[host]
      list[2] = list[2] + 1
      local id = list[1][list[2]]
      return id and {id, tenant, host}
    end)
  end

  local of = {}
  local line = due_of(P .. 'hooks:first', most + distinct + 1)
  local turns = by_turns(line, tenants, per_tenant, function(tenant)
    if not of[tenant] then of[tenant] = deliveries_of(tenant) end
    return of[tenant]()
  end)
  local touched = {}
  while #answer < most + 2 do
    local one = turns()
    if not one then break end
    local id, tenant, host = unpack(one)
    call('HINCRBY', P .. 'hook:' .. id, 'attempts', 1)
    local key = hooks_at(tenant, host)
    call('ZADD', key, at + ARGV[3], id)
    touched[key] = {tenant, host}
    answer[#answer + 1] = hook_of(id)
  end
  for _, one in pairs(touched) do hook_touch(one[1], one[2]) end
  return answer
end

if act == 'settle' then
  local id, how = ARGV[3], ARGV[5]
  local key = P .. 'hook:' .. id
  local hook = call('HMGET', key, 'attempts', 'dead', 'host', 'job', 'tenant')
  if hook[1] ~= ARGV[4] then return 0 end
  local function forget()
    call('DEL', key)
    call('SREM', P .. 'hooks:ids:' .. hook[4], id)
  end
  if hook[2] ~= '0' then
    if how ~= 'delivered' then return 0 end
    -- It gave way while it was under way, and has arrived.
    call('ZREM', P .. 'hooks:dead:' .. hook[5], id)
    forget()
    return 1
  end
  if how == 'retry' then
    call('HSET', key, 'error', ARGV[7])
    call('ZADD', hooks_at(hook[5], hook[3]), ARGV[6], id)
    hook_touch(hook[5], hook[3])
    return 1
  end
  if how == 'dead' then
    hook_bury(id, hook[4], hook[5], hook[3], at, ARGV[7])
  else
    hook_leave(id, hook[4], hook[5], hook[3], at)
    forget()
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
  hook_enter(id, hook[3], tenant, hook[4], at)
  call('ZADD', P .. 'hooks:of:' .. tenant, call('GET', P .. 'hooks:seq'), id)
end
return hook_of(id)
