-- Put before every script. Owns the names of keys and the order of service. KEYS[1] is the prefix with the fleet's hash tag, so that every key of
-- a fleet is in one slot of a cluster. Always true: one script is one atomic step, and what it leaves is whole.
--
--   job:ID      hash, the record        events:ID   stream, entries SEQUENCE-0       ready:TENANT         zset of places by score
--   held        hash token -> ID        leases      zset of tokens by expiry         class:TENANT:CLASS   the same, of one class
--   delayed     zset of places by time  deadlines   zset of places by time           classes:TENANT       set of classes that have a ready job
--   flows       zset of tenants with ready jobs by virtual start                     idle                 virtual starts of the others
--   jobs:TENANT:STATUS, label:LABEL, batch:ID, error:REASON                          zsets of places by time of creation
--   usage:TENANT  hash: bytes, day, gpu (ms on that day)      running  hash of jobs held by tenant      most  hash of how many may be
--   batches:BATCH  hash: counts by status, done, tenant, grace ...     members:BATCH  its jobs, as JSON     stopping  hash batch -> ms, to be canceled
--   ended_jobs  zset of places by time of end       expiring  zset of places by the time that their results go
--   upload:ID   hash     uploads:expiring  zset of uploads by expiry     uploads:deleting  set     uploads:count, uploads:bytes  hashes by tenant
--   needs:UPLOAD, uses:UPLOAD  sets of places: jobs that have not ended, that are not purged       names:ID  set of the uploads that a job names
--   inputs:ID, waiters:ID, owed: see chains.lua      cache:FINGERPRINT, flight:FINGERPRINT, ...: see flights.lua
--   changes     zset of places by change number       refs:BLOB, unreferenced, deleting, meta, weights, tenants, passed, nodes
--
-- A place is a number of 14 digits that rises with each submission, and the job's id: members of equal score keep the order of submission.
local P = KEYS[1]
-- All arguments come packed as one.
local ARGV = cmsgpack.unpack(ARGV[1])
local call = redis.call

local QUEUED, PROCESSING, FAILED = '1', '2', '4'
local RECORD = {'ver', 'state', 'request', 'facts', 'tenant', 'place', 'score', 'status', 'token', 'node', 'blob', 'claimed', 'deadline', 'op', 'owed', 'fp', 'riders', 'joined'}

local function now()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function exact(number)
  return string.format('%.17g', number)
end

local function id_of(place)
  return string.sub(place, 15)
end

local function key_of(id)
  return P .. 'job:' .. id
end

local function record_of(key)
  return call('HMGET', key, unpack(RECORD))
end

local function terminal(status)
  return status ~= QUEUED and status ~= PROCESSING
end

-- Tells whoever watches all jobs.
local function changed(place)
  local change = call('INCR', P .. 'change')
  call('ZADD', P .. 'changes', change, place)
  call('PUBLISH', P .. 'changed', change)
end

local function moved(tenant, place, created, from, to)
  if from == to then return end
  if from then call('ZREM', P .. 'jobs:' .. tenant .. ':' .. from, place) end
  call('ZADD', P .. 'jobs:' .. tenant .. ':' .. to, created, place)
end

-- No new job may name the upload; its bytes go when no job needs them.
local function let_go(upload)
  local key = P .. 'upload:' .. upload
  if call('EXISTS', key) == 0 then return end
  call('ZREM', P .. 'uploads:expiring', upload)
  if call('EXISTS', P .. 'needs:' .. upload) == 1 then
    call('HSET', key, 'state', 'released')
  else
    call('HSET', key, 'state', 'deleting')
    call('SADD', P .. 'uploads:deleting', upload)
  end
end

-- A job has ended: it needs its uploads no more.
local function uploads_ended(id, place)
  for _, upload in ipairs(call('SMEMBERS', P .. 'names:' .. id)) do
    call('SREM', P .. 'needs:' .. upload, place)
    if call('HGET', P .. 'upload:' .. upload, 'state') == 'released' then let_go(upload) end
  end
end

-- A job is forgotten: what callers still have of its uploads stays.
local function uploads_forgotten(id, place)
  for _, upload in ipairs(call('SMEMBERS', P .. 'names:' .. id)) do call('SREM', P .. 'uses:' .. upload, place) end
  call('DEL', P .. 'names:' .. id)
end

-- A job that has ended is to leave nothing behind.
local function uploads_purged(id, place)
  for _, upload in ipairs(call('SMEMBERS', P .. 'names:' .. id)) do
    call('SREM', P .. 'uses:' .. upload, place)
    if call('EXISTS', P .. 'uses:' .. upload) == 0 then let_go(upload) end
  end
  call('DEL', P .. 'names:' .. id)
end

-- The order of service: tenants share by weight in virtual time (each claim moves its tenant on by 1/weight), within a tenant the lower score
-- is first. The same as `ReadyQueue`, which says more.

local function weight_of(tenant)
  return tonumber(call('HGET', P .. 'weights', tenant) or '1')
end

-- Virtual start of the job claimed last.
local function virtual_now()
  return tonumber(call('GET', P .. 'virtual') or '0')
end

-- Virtual start of a tenant's next job, and whether it has one. What an idle tenant is behind is forgotten.
local function start_of(tenant)
  local active = call('ZSCORE', P .. 'flows', tenant)
  if active then return tonumber(active), true end
  return math.max(tonumber(call('HGET', P .. 'idle', tenant) or '0'), virtual_now()), false
end

local function set_start(tenant, start, active)
  if active then
    call('ZADD', P .. 'flows', exact(start), tenant)
  elseif start > virtual_now() then
    call('HSET', P .. 'idle', tenant, exact(start))
  else
    call('HDEL', P .. 'idle', tenant)
  end
end

-- Tells the claims that wait for a job, where there are any: the last one that found none has left its mark.
local function wake()
  if call('DEL', P .. 'waiting') == 1 then call('PUBLISH', P .. 'ready', '') end
end

-- Makes a job ready, its tenant at virtual `start` if it had none.
local function enter(tenant, class, score, place, start)
  if call('EXISTS', P .. 'ready:' .. tenant) == 0 then
    call('ZADD', P .. 'flows', exact(start or start_of(tenant)), tenant)
    call('HDEL', P .. 'idle', tenant)
  end
  call('ZADD', P .. 'ready:' .. tenant, score, place)
  if call('ZADD', P .. 'class:' .. tenant .. ':' .. class, score, place) == 1 then call('SADD', P .. 'classes:' .. tenant, class) end
  wake()
end

-- Takes a job out of the queue, ready or not.
local function leave(tenant, class, place)
  if call('ZREM', P .. 'ready:' .. tenant, place) == 0 then
    call('ZREM', P .. 'delayed', place)
    return
  end
  local classed = P .. 'class:' .. tenant .. ':' .. class
  call('ZREM', classed, place)
  if call('EXISTS', classed) == 0 then
    call('SREM', P .. 'classes:' .. tenant, class)
    call('HDEL', P .. 'passed', tenant .. ':' .. class)
  end
  if call('EXISTS', P .. 'ready:' .. tenant) == 0 then
    local start = tonumber(call('ZSCORE', P .. 'flows', tenant))
    call('ZREM', P .. 'flows', tenant)
    set_start(tenant, start, false)
  end
end

-- Back to its place: the tenant is not charged for the claim, and gains no turns for the time it was away.
local function give_back(tenant, class, score, place)
  local start, active = start_of(tenant)
  start = start - 1 / weight_of(tenant)
  if active then set_start(tenant, start, true) end
  enter(tenant, class, score, place, start)
end

-- Makes ready what has waited for its time.
local function promote(at)
  for _, place in ipairs(call('ZRANGEBYSCORE', P .. 'delayed', '-inf', at, 'LIMIT', 0, 100)) do
    call('ZREM', P .. 'delayed', place)
    local facts = call('HMGET', key_of(id_of(place)), 'tenant', 'class', 'score')
    enter(facts[1], facts[2], facts[3], place)
  end
end

-- How many jobs would be served before this one if nothing else came; of one that waits for its retry, as if it were ready. As `ReadyQueue.position`.
local function position(tenant, score, place)
  local ready = P .. 'ready:' .. tenant
  local ahead = call('ZRANK', ready, place)
  if not ahead then
    ahead = call('ZCOUNT', ready, '-inf', '(' .. score)
    for _, other in ipairs(call('ZRANGEBYSCORE', ready, score, score)) do
      if other < place then ahead = ahead + 1 end
    end
  end
  local start = start_of(tenant) + ahead / weight_of(tenant)
  local flows = call('ZRANGEBYSCORE', P .. 'flows', '-inf', exact(start), 'WITHSCORES')
  local before = ahead
  for i = 1, #flows, 2 do
    local other = flows[i]
    if other ~= tenant then
      local turns = (start - tonumber(flows[i + 1])) * weight_of(other)
      local whole = math.floor(turns + 0.5)
      local served
      if math.abs(turns - whole) < 1e-9 then served = whole + (other < tenant and 1 or 0) else served = math.ceil(turns) end
      before = before + math.min(call('ZCARD', P .. 'ready:' .. other), served)
    end
  end
  return before
end

-- Whether a tenant may have one more job held.
local function may_run(tenant)
  local most = call('HGET', P .. 'most', tenant)
  return not most or tonumber(call('HGET', P .. 'running', tenant) or '0') < tonumber(most)
end

-- The position of a job that is in the queue, and where its tenant runs as many as it may, -1 less that.
local function shown_position(tenant, score, place)
  local at = position(tenant, score, place)
  if may_run(tenant) then return at else return -1 - at end
end

-- The same of a record; of one that is held 0, of one that is not queued false.
local function position_of(record)
  if record[8] ~= QUEUED then return false end
  if record[9] then return 0 end
  return shown_position(record[5], record[7], record[6])
end
