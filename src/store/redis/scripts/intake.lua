-- Put after chains.lua. How jobs come in, alone and in batches.

-- What a tenant has used, where that is too much for another job.
local USAGE = {}
local function over_usage(tenant, day, most_bytes, most_ms)
  if most_bytes == '' and most_ms == '' then return end
  if not USAGE[tenant] then USAGE[tenant] = call('HMGET', P .. 'usage:' .. tenant, 'bytes', 'day', 'gpu') end
  local usage = USAGE[tenant]
  local bytes, spent = tonumber(usage[1] or '0'), usage[2] == day and tonumber(usage[3]) or 0
  if (most_bytes ~= '' and bytes >= tonumber(most_bytes)) or (most_ms ~= '' and spent >= tonumber(most_ms)) then return {'used', bytes, spent} end
end

-- The first upload (one a line) that no job of the tenant may name.
local function missing_upload(uploads, tenant, at)
  for upload in string.gmatch(uploads, '[^\n]+') do
    local found = call('HMGET', P .. 'upload:' .. upload, 'tenant', 'state', 'expires')
    if found[1] ~= tenant or found[2] ~= 'whole' or tonumber(found[3]) <= tonumber(at) then return upload end
  end
end

-- Of a tenant's queued jobs.
local function queue_of(tenant)
  return P .. 'jobs:' .. tenant .. ':' .. QUEUED
end

-- Numbers of places; one that is not used is missed by nobody.
local NUMBERS, NUMBER = 0, 0
local function next_number()
  if NUMBERS == 0 then
    NUMBERS = #STEPS
    NUMBER = call('INCRBY', P .. 'number', NUMBERS) - NUMBERS
  end
  NUMBERS, NUMBER = NUMBERS - 1, NUMBER + 1
  return NUMBER
end

-- A job that may come in: record, queue and first event. Answers its place.
local TENANTS = {}
local function insert(job)
  local key = key_of(job.id)
  local place = string.format('%014d', next_number()) .. job.id
  call('HSET', key, 'ver', 1, 'state', job.state, 'request', job.request, 'facts', job.facts, 'tenant', job.tenant, 'class', job.class, 'place', place,
    'score', job.score, 'status', QUEUED, 'created', job.created, 'deadline', job.deadline)
  call('XADD', P .. 'events:' .. job.id, '1-0', 'events', job.event)
  for upload in string.gmatch(job.uploads, '[^\n]+') do
    call('SADD', P .. 'names:' .. job.id, upload)
    call('SADD', P .. 'needs:' .. upload, place)
    call('SADD', P .. 'uses:' .. upload, place)
  end
  if not TENANTS[job.tenant] then
    call('SADD', P .. 'tenants', job.tenant)
    TENANTS[job.tenant] = true
  end
  COUNTS[queue_of(job.tenant)] = count_of(queue_of(job.tenant)) + 1
  moved(job.tenant, place, job.created, nil, QUEUED)
  if job.batch ~= '' then put_score(P .. 'batch:' .. job.batch, place, job.created) end
  for _, label in ipairs(job.labels) do put_score(P .. 'label:' .. label, place, job.created) end
  if job.deadline ~= '' then put_score(P .. 'deadlines', place, job.deadline) end
  if take_inputs(job.id, place, job.inputs) == 0 then
    enter(job.tenant, job.class, job.score, place)
  else
    call('HSET', key, 'ready', NEVER)
    call('ZADD', P .. 'delayed', NEVER, place)
  end
  if job.effects ~= '' then
    local effects = cjson.decode(job.effects)
    hook_add(effects.hook, job.id, job.tenant, effects.at)
  end
  changed(place)
  return place
end
