-- Put after chains.lua. How jobs come in, alone and in batches.

-- What a tenant has used, where that is too much for another job.
local function over_usage(tenant, day, most_bytes, most_ms)
  local usage = call('HMGET', P .. 'usage:' .. tenant, 'bytes', 'day', 'gpu')
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

-- A job that may come in: record, queue and first event. Answers its place.
local function insert(job)
  local key = key_of(job.id)
  local place = string.format('%014d', call('INCR', P .. 'number')) .. job.id
  call('HSET', key, 'ver', 1, 'state', job.state, 'request', job.request, 'facts', job.facts, 'tenant', job.tenant, 'class', job.class, 'place', place,
    'score', job.score, 'status', QUEUED, 'created', job.created, 'deadline', job.deadline)
  call('XADD', P .. 'events:' .. job.id, '1-0', 'k', 'state', 'e', job.event)
  for upload in string.gmatch(job.uploads, '[^\n]+') do
    call('SADD', P .. 'names:' .. job.id, upload)
    call('SADD', P .. 'needs:' .. upload, place)
    call('SADD', P .. 'uses:' .. upload, place)
  end
  call('SADD', P .. 'tenants', job.tenant)
  moved(job.tenant, place, job.created, nil, QUEUED)
  if job.batch ~= '' then call('ZADD', P .. 'batch:' .. job.batch, job.created, place) end
  for _, label in ipairs(job.labels) do call('ZADD', P .. 'label:' .. label, job.created, place) end
  if job.deadline ~= '' then call('ZADD', P .. 'deadlines', job.deadline, place) end
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
