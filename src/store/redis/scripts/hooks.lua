-- Put after lib.lua. What receivers are to be told, until they have been.
--
--   hook:ID      hash, a delivery                 hooks:job:JOB  zset of the job's that are not dead, by their order     hooks:ids:JOB  set of all
--   hooks:first  zset of tenants, and hooks:first:TENANT of a tenant's hosts, by the time of their first     hooks:at:TENANT:HOST  zset of deliveries by time
--   hooks:of:TENANT, hooks:dead:TENANT  zsets of deliveries by their order     hooks:seq  number
--   hooks:news:TENANT  zset of those of hooks:of:TENANT that give way to newer ones, by their order     hooks:gave_way  how many have that nobody was told of
--
-- Of one job only the oldest that is not dead has a time to be tried. One that was taken is due again when its lease is over.
local function hooks_at(tenant, host)
  -- Both may have colons.
  return P .. 'hooks:at:' .. #tenant .. ':' .. tenant .. ':' .. host
end

local function hooks_first(of, its, member)
  local first = call('ZRANGE', its, 0, 0, 'WITHSCORES')
  if first[2] then call('ZADD', of, first[2], member) else call('ZREM', of, member) end
end

-- When a tenant's deliveries to a host are due has changed.
local function hook_touch(tenant, host)
  local hosts = P .. 'hooks:first:' .. tenant
  hooks_first(hosts, hooks_at(tenant, host), host)
  hooks_first(P .. 'hooks:first', hosts, tenant)
end

-- It may be tried from then on, if it is the first of its job.
local function hook_enter(id, job, tenant, host, at)
  local queue = P .. 'hooks:job:' .. job
  call('ZADD', queue, call('INCR', P .. 'hooks:seq'), id)
  if call('ZRANGE', queue, 0, 0)[1] ~= id then return end
  call('ZADD', hooks_at(tenant, host), at, id)
  hook_touch(tenant, host)
  call('PUBLISH', P .. 'hooks', id)
end

-- It is not tried any more; the next of its job is.
local function hook_leave(id, job, tenant, host, at)
  local queue = P .. 'hooks:job:' .. job
  call('ZREM', queue, id)
  call('ZREM', P .. 'hooks:of:' .. tenant, id)
  call('ZREM', P .. 'hooks:news:' .. tenant, id)
  local had_a_time = call('ZREM', hooks_at(tenant, host), id) == 1
  hook_touch(tenant, host)
  local following = had_a_time and call('ZRANGE', queue, 0, 0)[1]
  if not following then return end
  local its = call('HGET', P .. 'hook:' .. following, 'host')
  call('ZADD', hooks_at(tenant, its), at, following)
  hook_touch(tenant, its)
end

local function hook_bury(id, job, tenant, host, at, why)
  hook_leave(id, job, tenant, host, at)
  call('HSET', P .. 'hook:' .. id, 'dead', 1, 'error', why)
  call('ZADD', P .. 'hooks:dead:' .. tenant, call('INCR', P .. 'hooks:seq'), id)
end

-- The oldest that tell of no end are dead, where there are more than may be.
local function hooks_make_room(tenant, limit, at)
  local news = P .. 'hooks:news:' .. tenant
  local many = math.min(call('ZCARD', news) - limit.most, limit.give)
  if many <= 0 then return end
  for _, id in ipairs(call('ZRANGE', news, 0, many - 1)) do
    local hook = call('HMGET', P .. 'hook:' .. id, 'job', 'host', 'dead')
    if hook[3] == '0' then
      hook_bury(id, hook[1], tenant, hook[2], at, limit.why)
      call('INCR', P .. 'hooks:gave_way')
    else
      -- Settled by a version that knows of no such list.
      call('ZREM', news, id)
    end
  end
end

local function hook_add(hook, job, tenant, at)
  local key = P .. 'hook:' .. hook.id
  if call('EXISTS', key) == 1 then return end
  call('HSET', key, 'id', hook.id, 'url', hook.url, 'host', hook.host, 'status', hook.status, 'tenant', tenant, 'job', job, 'state', hook.state,
    'created', at, 'since', at, 'attempts', 0, 'dead', 0)
  call('SADD', P .. 'hooks:ids:' .. job, hook.id)
  hook_enter(hook.id, job, tenant, hook.host, at)
  call('ZADD', P .. 'hooks:of:' .. tenant, call('GET', P .. 'hooks:seq'), hook.id)
  if hook.news then
    call('ZADD', P .. 'hooks:news:' .. tenant, call('GET', P .. 'hooks:seq'), hook.id)
    hooks_make_room(tenant, hook.news, at)
  end
end

local function hooks_forgotten(job, at)
  for _, id in ipairs(call('SMEMBERS', P .. 'hooks:ids:' .. job)) do
    local hook = call('HMGET', P .. 'hook:' .. id, 'host', 'tenant')
    if hook[1] then
      hook_leave(id, job, hook[2], hook[1], at)
      call('ZREM', P .. 'hooks:dead:' .. hook[2], id)
      call('DEL', P .. 'hook:' .. id)
    end
  end
  call('DEL', P .. 'hooks:ids:' .. job)
end
