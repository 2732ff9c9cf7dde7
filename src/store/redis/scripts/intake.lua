-- Put after chains.lua. How jobs come in, alone and in batches.

-- What a tenant has used, where that is too much for another job. `most`: '' or {day, bytes or '', ms of engine time that day or ''}.
local USAGE = {}
local function over_usage(tenant, most)
  if most == '' then return end
  local day, most_bytes, most_ms = unpack(most)
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

-- Of the jobs of all steps, those that have not been here before.
local NEW
local function is_new(id)
  if not NEW then
    NEW = {}
    local keys = {}
    for i, first in ipairs(STEPS) do keys[i] = key_of(PACKED[first + 1]) end
    if call('EXISTS', unpack(keys)) == 0 then
      for _, first in ipairs(STEPS) do NEW[PACKED[first + 1]] = true end
    end
  end
  local new = NEW[id]
  NEW[id] = nil
  return new
end

-- The place that comes last in the order of service, of tenants: {score, place}.
local LAST = {}

-- A job is ready, and its tenant's queue written when all steps are made. Answers how many of its tenant's come before it.
local function line_up(tenant, class, score, place)
  expect(tenant, class)
  local ready, classed = ready_of(tenant), class_of(tenant, class)
  local ahead, rank = count_of(ready), tonumber(score)
  local last = LAST[tenant]
  if not last then
    local found = call('ZRANGE', ready, -1, -1, 'WITHSCORES')
    last = {tonumber(found[2] or '-inf'), found[1] or ''}
    LAST[tenant] = last
  end
  COUNTS[ready] = ahead + 1
  if COUNTS[classed] then COUNTS[classed] = COUNTS[classed] + 1 end
  put_score(ready, place, score)
  put_score(classed, place, score)
  if rank > last[1] or (rank == last[1] and place > last[2]) then
    last[1], last[2] = rank, place
    return ahead
  end
  write_scores(ready)
  SCORES[ready] = nil
  return call('ZRANK', ready, place)
end

-- A job that may come in: record, queue and first event. From `first` on `list` has of it: id, class, score, deadline or '', state, request, facts, first event, batch or '', uploads that it
-- names (one a line), jobs whose results it takes (one a line: `ID BLOB`, `ID ` of one that has not ended), those of them that are of its batch, JSON of what it has
-- to tell or '', labels... to the end. Answers its place, and how many of its tenant's come before it.
local TENANTS = {}
local function insert(tenant, created, list, first)
  local id, class, score, deadline, state, request, facts, event, batch, uploads, outside, siblings, effects =
    unpack(list, first, first + 12)
  local key = key_of(id)
  local place = string.format('%014d', next_number()) .. id
  call('HSET', key, 'ver', 1, 'state', state, 'request', request, 'facts', facts, 'tenant', tenant, 'class', class, 'place', place, 'score', score,
    'status', QUEUED, 'created', created, 'log', event)
  if deadline ~= '' then
    call('HSET', key, 'deadline', deadline)
    put_score(P .. 'deadlines', place, deadline)
  end
  if uploads ~= '' or outside ~= '' or siblings ~= '' then call('HSET', key, 'ties', 1) end
  for upload in string.gmatch(uploads, '[^\n]+') do
    call('SADD', P .. 'names:' .. id, upload)
    call('SADD', P .. 'needs:' .. upload, place)
    call('SADD', P .. 'uses:' .. upload, place)
  end
  if not TENANTS[tenant] then
    call('SADD', P .. 'tenants', tenant)
    TENANTS[tenant] = true
  end
  local queued = queue_of(tenant)
  COUNTS[queued] = count_of(queued) + 1
  put_score(queued, place, created)
  if batch ~= '' then put_score(P .. 'batch:' .. batch, place, created) end
  for i = first + 13, #list do put_score(P .. 'label:' .. list[i], place, created) end
  local ahead
  local inputs = siblings == '' and outside or outside .. '\n' .. siblings
  if inputs == '' or take_inputs(id, place, inputs) == 0 then
    ahead = line_up(tenant, class, score, place)
  else
    call('ZADD', P .. 'delayed', NEVER, place)
  end
  if effects ~= '' then
    local told = cjson.decode(effects)
    hook_add(told.hook, id, tenant, told.at)
  end
  changed(place)
  return place, ahead
end
