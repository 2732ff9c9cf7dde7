-- Put after head.lua. What steps of a kind share, and the order of service.

local NOW
local function now()
  if not NOW then
    local t = call('TIME')
    NOW = t[1] * 1000 + math.floor(t[2] / 1000)
  end
  return NOW
end

local function exact(number)
  return string.format('%.17g', number)
end

-- Of the job that `held` says is held.
local function held_id(what)
  return string.match(what, '^%S+')
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

-- What is written when all steps are made, by key: member -> score, false of one that goes. No step reads these keys after it has written to one.
local SCORES = {}
local function put_score(key, member, value)
  local members = SCORES[key]
  if not members then
    members = {}
    SCORES[key] = members
  end
  members[member] = value
end

-- Redis takes so many arguments of a command at once, and Lua of a function.
local AT_ONCE = 1000
local function all_at_once(command, key, list)
  for i = 1, #list, AT_ONCE do call(command, key, unpack(list, i, math.min(#list, i + AT_ONCE - 1))) end
end

local function write_scores(key)
  local come, go = {}, {}
  for member, value in pairs(SCORES[key] or {}) do
    if value then
      come[#come + 1] = value
      come[#come + 1] = member
    else
      go[#go + 1] = member
    end
  end
  all_at_once('ZREM', key, go)
  all_at_once('ZADD', key, come)
end

-- The same of hashes of numbers: field -> how much it rises.
local RISES = {}
local function rise(key, field, by)
  local fields = RISES[key]
  if not fields then
    fields = {}
    RISES[key] = fields
  end
  fields[field] = (fields[field] or 0) + by
end

-- Figures of hours, which go after 400 days.
local HOURS = {}
local function count_end(minute, status)
  local hour = P .. 'ended:' .. math.floor(minute / 60)
  rise(hour, minute .. ':' .. status, 1)
  HOURS[hour] = true
end

-- What a tenant has used more, and of engine time on which day.
local DAYS = {}
local function use(tenant, bytes, ms, day)
  local usage = P .. 'usage:' .. tenant
  if not DAYS[tenant] then DAYS[tenant] = call('HGET', usage, 'day') or '' end
  if DAYS[tenant] ~= day then
    call('HSET', usage, 'day', day, 'gpu', 0)
    if RISES[usage] then RISES[usage].gpu = nil end
    DAYS[tenant] = day
  end
  rise(usage, 'bytes', bytes)
  rise(usage, 'gpu', ms)
end

-- Leases that begin (token -> what `held` has of it) and end (token -> false).
local HELD = {}

-- Blobs that something has come to refer to.
local REFERRED = {}

-- Tells whoever watches all jobs.
local CHANGED = {}
local function changed(place)
  CHANGED[#CHANGED + 1] = place
end

local function moved(tenant, place, created, from, to)
  if from == to then return end
  if from then put_score(P .. 'jobs:' .. tenant .. ':' .. from, place, false) end
  put_score(P .. 'jobs:' .. tenant .. ':' .. to, place, created)
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

local WEIGHTS = {}
local function weight_of(tenant)
  if not WEIGHTS[tenant] then WEIGHTS[tenant] = tonumber(call('HGET', P .. 'weights', tenant) or '1') end
  return WEIGHTS[tenant]
end

-- Names of keys that every step needs, so that none is put together twice.
local READY, CLASSED = {}, {}
local function ready_of(tenant)
  local key = READY[tenant]
  if not key then
    key = P .. 'ready:' .. tenant
    READY[tenant] = key
  end
  return key
end

local function class_of(tenant, class)
  local keys = CLASSED[tenant]
  if not keys then
    keys = {}
    CLASSED[tenant] = keys
  end
  local key = keys[class]
  if not key then
    key = P .. 'class:' .. tenant .. ':' .. class
    keys[class] = key
  end
  return key
end

-- Virtual start of the job claimed last.
local VIRTUAL, VIRTUAL_WAS
local function virtual_now()
  if not VIRTUAL then
    VIRTUAL = tonumber(call('GET', P .. 'virtual') or '0')
    VIRTUAL_WAS = VIRTUAL
  end
  return VIRTUAL
end

-- Of tenants: {virtual start as it is kept, whether it has a ready job}.
local FLOWS = {}
local function flow_of(tenant)
  local flow = FLOWS[tenant]
  if not flow then
    local active = call('ZSCORE', P .. 'flows', tenant)
    flow = {tonumber(active or call('HGET', P .. 'idle', tenant) or '0'), active and true or false}
    FLOWS[tenant] = flow
  end
  return flow
end

-- Virtual start of a tenant's next job, and whether it has one. What an idle tenant is behind is forgotten.
local function start_of(tenant)
  local flow = flow_of(tenant)
  if flow[2] then return flow[1], true end
  return math.max(flow[1], virtual_now()), false
end

-- The first tenants with ready jobs, in order: {tenant, start} .... All there are, where they are fewer than so many.
local FIRST = 64
local ORDER
local function order()
  if not ORDER then
    ORDER = {}
    local flows = call('ZRANGE', P .. 'flows', 0, FIRST - 1, 'WITHSCORES')
    for i = 1, #flows, 2 do ORDER[#ORDER + 1] = {flows[i], tonumber(flows[i + 1])} end
  end
  return ORDER
end

-- The tenant at a place of that order.
local PAGE, PAGE_AT
local function flow_at(i)
  local list = order()
  if list[i] or #list < FIRST then return list[i] end
  local page = math.floor((i - 1) / FIRST)
  if PAGE_AT ~= page then
    PAGE, PAGE_AT = call('ZRANGE', P .. 'flows', page * FIRST, page * FIRST + FIRST - 1, 'WITHSCORES'), page
  end
  local at = 2 * (i - page * FIRST)
  if PAGE[at] then return {PAGE[at - 1], tonumber(PAGE[at])} end
end

local function set_start(tenant, start, active)
  local flow = flow_of(tenant)
  local list = order()
  put_score(P .. 'flows', tenant, active and start)
  if #list < FIRST - 1 then
    local at = 1
    while list[at] and list[at][1] ~= tenant do at = at + 1 end
    local own = list[at] and table.remove(list, at) or {tenant}
    if active then
      own[2], at = start, 1
      while list[at] and (list[at][2] < start or (list[at][2] == start and list[at][1] < tenant)) do at = at + 1 end
      table.insert(list, at, own)
    end
  else
    write_scores(P .. 'flows')
    SCORES[P .. 'flows'], ORDER, PAGE_AT = nil, nil, nil
  end
  if active then
    if not flow[2] then call('HDEL', P .. 'idle', tenant) end
  else
    if start > virtual_now() then
      call('HSET', P .. 'idle', tenant, exact(start))
    else
      call('HDEL', P .. 'idle', tenant)
    end
  end
  flow[1], flow[2] = start, active
end

-- How many members a sorted set of ready jobs has.
local COUNTS = {}
local function count_of(key)
  if not COUNTS[key] then COUNTS[key] = call('ZCARD', key) end
  return COUNTS[key]
end

-- Tells the claims that wait for a job, where there are any: the last one that found none has left its mark.
local WAKES, WAITS = false, false
local function wake()
  WAKES = true
end

-- The classes of a tenant that have a ready job.
local CLASSES = {}
local function classes_of(tenant)
  if not CLASSES[tenant] then
    CLASSES[tenant] = {}
    for _, class in ipairs(call('SMEMBERS', P .. 'classes:' .. tenant)) do CLASSES[tenant][class] = true end
  end
  return CLASSES[tenant]
end

-- A tenant is about to have a ready job of a class; at virtual `start` if it had none.
local function expect(tenant, class, start)
  if not flow_of(tenant)[2] then set_start(tenant, start or start_of(tenant), true) end
  local classes = classes_of(tenant)
  if not classes[class] then
    call('SADD', P .. 'classes:' .. tenant, class)
    classes[class] = true
  end
  wake()
end

-- Makes a job ready.
local function enter(tenant, class, rank, place, start)
  expect(tenant, class, start)
  local ready, classed = ready_of(tenant), class_of(tenant, class)
  if call('ZADD', ready, rank, place) == 1 and COUNTS[ready] then COUNTS[ready] = COUNTS[ready] + 1 end
  if call('ZADD', classed, rank, place) == 1 and COUNTS[classed] then COUNTS[classed] = COUNTS[classed] + 1 end
end

-- A ready job has gone.
local function gone(tenant, class)
  local ready, classed = ready_of(tenant), class_of(tenant, class)
  COUNTS[ready], COUNTS[classed] = COUNTS[ready] - 1, COUNTS[classed] - 1
  if COUNTS[classed] == 0 then
    call('SREM', P .. 'classes:' .. tenant, class)
    call('HDEL', P .. 'passed', tenant .. ':' .. class)
    classes_of(tenant)[class] = nil
  end
  if COUNTS[ready] == 0 then set_start(tenant, flow_of(tenant)[1], false) end
end

-- Takes a job out of the queue, ready or not.
local function leave(tenant, class, place)
  local ready, classed = ready_of(tenant), class_of(tenant, class)
  -- As many as there were: `gone` takes off the one.
  count_of(ready)
  count_of(classed)
  if call('ZREM', ready, place) == 0 then
    call('ZREM', P .. 'delayed', place)
    return
  end
  call('ZREM', classed, place)
  gone(tenant, class)
end

-- The jobs of a class that come first, {place, score, place ...}, and where the next one is. For claims, which add none.
local HEADS = {}
local function head_of(tenant, class)
  local classed = class_of(tenant, class)
  local heads = HEADS[classed]
  if not heads then
    heads = {call('ZRANGE', classed, 0, #STEPS - 1, 'WITHSCORES'), 1}
    HEADS[classed] = heads
  end
  return heads[1][heads[2]], tonumber(heads[1][heads[2] + 1])
end

-- The head of a class leaves the queue.
local function take(tenant, class)
  local ready, classed = ready_of(tenant), class_of(tenant, class)
  local place = head_of(tenant, class)
  HEADS[classed][2] = HEADS[classed][2] + 2
  count_of(ready)
  count_of(classed)
  put_score(ready, place, false)
  put_score(classed, place, false)
  gone(tenant, class)
end

-- Back to its place: the tenant is not charged for the claim, and gains no turns for the time it was away.
local function give_back(tenant, class, score, place)
  local start, active = start_of(tenant)
  start = start - 1 / weight_of(tenant)
  if active then set_start(tenant, start, true) end
  enter(tenant, class, score, place, start)
end

-- Makes ready what has waited for its time.
local PROMOTED = false
local function promote(at)
  if PROMOTED then return end
  PROMOTED = true
  for _, place in ipairs(call('ZRANGEBYSCORE', P .. 'delayed', '-inf', at, 'LIMIT', 0, 100)) do
    call('ZREM', P .. 'delayed', place)
    local facts = call('HMGET', key_of(id_of(place)), 'tenant', 'class', 'score')
    enter(facts[1], facts[2], facts[3], place)
  end
end

-- How many jobs would be served before this one if nothing else came; of one that waits for its retry, as if it were ready. As `ReadyQueue.position`.
-- `ahead`: of its own tenant's, where that is known.
local function position(tenant, score, place, ahead)
  local ready = ready_of(tenant)
  if not ahead and SCORES[ready] then
    write_scores(ready)
    SCORES[ready] = nil
  end
  ahead = ahead or call('ZRANK', ready, place)
  if not ahead then
    ahead = call('ZCOUNT', ready, '-inf', '(' .. score)
    for _, other in ipairs(call('ZRANGEBYSCORE', ready, score, score)) do
      if other < place then ahead = ahead + 1 end
    end
  end
  local start = start_of(tenant) + ahead / weight_of(tenant)
  local before = ahead
  for i = 1, math.huge do
    local flow = flow_at(i)
    if not flow or flow[2] > start then break end
    local other = flow[1]
    if other ~= tenant then
      local turns = (start - flow[2]) * weight_of(other)
      local whole = math.floor(turns + 0.5)
      local served
      if math.abs(turns - whole) < 1e-9 then served = whole + (other < tenant and 1 or 0) else served = math.ceil(turns) end
      before = before + math.min(count_of(ready_of(other)), served)
    end
  end
  return before
end

-- How many jobs of a tenant may be held at once; false: any number.
local MOST = {}
local function most_of(tenant)
  if MOST[tenant] == nil then MOST[tenant] = call('HGET', P .. 'most', tenant) end
  return MOST[tenant]
end

-- '' for any number, '-' as before.
local function set_most(tenant, most)
  if most == '-' or most == (most_of(tenant) or '') then return end
  if most == '' then call('HDEL', P .. 'most', tenant) else call('HSET', P .. 'most', tenant, most) end
  MOST[tenant] = most ~= '' and most
end

-- Whether a tenant may have one more job held.
local RUNNING = {}
local function may_run(tenant)
  local most = most_of(tenant)
  if not most then return true end
  if not RUNNING[tenant] then RUNNING[tenant] = tonumber(call('HGET', P .. 'running', tenant) or '0') end
  local risen = RISES[P .. 'running']
  return RUNNING[tenant] + (risen and risen[tenant] or 0) < tonumber(most)
end

-- The position of a job that is in the queue, and where its tenant runs as many as it may, -1 less that.
local function shown_position(tenant, score, place, ahead)
  local at = position(tenant, score, place, ahead)
  if may_run(tenant) then return at else return -1 - at end
end

-- The same of a record; of one that is held 0, of one that is not queued false.
local function position_of(record)
  if record[8] ~= QUEUED then return false end
  if record[9] then return 0 end
  return shown_position(record[5], record[7], record[6])
end

-- Writes what all steps together come to.
local function settle()
  if #CHANGED > 0 then
    local count, list = #CHANGED, {}
    local last = call('INCRBY', P .. 'change', count)
    for i, place in ipairs(CHANGED) do
      list[2 * i - 1] = last - count + i
      list[2 * i] = place
    end
    all_at_once('ZADD', P .. 'changes', list)
    call('PUBLISH', P .. 'changed', last)
  end
  for key in pairs(SCORES) do write_scores(key) end
  for key, fields in pairs(RISES) do
    for field, by in pairs(fields) do
      if by ~= 0 then call('HINCRBY', key, field, by) end
    end
  end
  for hour in pairs(HOURS) do call('EXPIRE', hour, 34560000) end
  local begun, over = {}, {}
  for token, what in pairs(HELD) do
    if what then
      begun[#begun + 1] = token
      begun[#begun + 1] = what
    else
      over[#over + 1] = token
    end
  end
  all_at_once('HSET', P .. 'held', begun)
  all_at_once('HDEL', P .. 'held', over)
  local referred = {}
  for blob in pairs(REFERRED) do referred[#referred + 1] = blob end
  all_at_once('SREM', P .. 'unreferenced', referred)
  if VIRTUAL ~= VIRTUAL_WAS then call('SET', P .. 'virtual', exact(VIRTUAL)) end
  if WAKES and call('DEL', P .. 'waiting') == 1 then call('PUBLISH', P .. 'ready', '') end
  if WAITS then call('SET', P .. 'waiting', '1') end
end
