-- One job in, or the job that its idempotency key stands for.
-- ARGV: id, tenant, class, score, created, deadline or '', idempotency key or '', its digest, how long it is kept, the tenant's limit,
--       state, request, facts, first event, batch or '', how many of the tenant's jobs may be held, '' for any number, '-' as before, day, and of the tenant's usage the most
--       bytes or '' and the most ms of engine time that day or '', now, uploads that it names (one a line), jobs whose
--       results it takes (one a line: `ID BLOB`, `ID ` of one that has not ended) or 'refused', labels...
-- Answers {'created', place, position}, {'known', position, record}, {'reused', id}, {'full', queued}, {'used', bytes, ms}, {'upload', id}, {'refused'} or {'moved'}: the
-- jobs whose results it takes are not as they were seen.
local id, tenant, class, score, created, deadline = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local idempotency = ARGV[7] ~= '' and P .. 'idempotency:' .. #tenant .. ':' .. tenant .. ':' .. ARGV[7]
local key = key_of(id)

-- The same command once more, after its answer was lost.
local place = call('HGET', key, 'place')
if place then return {'created', place, position_of(record_of(key)) or 0} end

if idempotency then
  local known = call('GET', idempotency)
  if known then
    local at = string.find(known, ' ', 1, true)
    local other = string.sub(known, at + 1)
    if string.sub(known, 1, at - 1) ~= ARGV[8] then return {'reused', other} end
    local record = record_of(key_of(other))
    if record[1] then return {'known', position_of(record), record} end
  end
end

local queued = call('ZCARD', P .. 'jobs:' .. tenant .. ':' .. QUEUED)
if queued >= tonumber(ARGV[10]) then return {'full', queued} end

local usage = call('HMGET', P .. 'usage:' .. tenant, 'bytes', 'day', 'gpu')
local bytes, spent = tonumber(usage[1] or '0'), usage[2] == ARGV[17] and tonumber(usage[3]) or 0
if (ARGV[18] ~= '' and bytes >= tonumber(ARGV[18])) or (ARGV[19] ~= '' and spent >= tonumber(ARGV[19])) then return {'used', bytes, spent} end
for upload in string.gmatch(ARGV[21], '[^\n]+') do
  local found = call('HMGET', P .. 'upload:' .. upload, 'tenant', 'state', 'expires')
  if found[1] ~= tenant or found[2] ~= 'whole' or tonumber(found[3]) <= tonumber(ARGV[20]) then return {'upload', upload} end
end
if ARGV[22] == 'refused' then return {'refused'} end
if not inputs_stand(tenant, ARGV[22]) then return {'moved'} end
if ARGV[16] == '' then call('HDEL', P .. 'most', tenant) elseif ARGV[16] ~= '-' then call('HSET', P .. 'most', tenant, ARGV[16]) end

place = string.format('%014d', call('INCR', P .. 'number')) .. id
call('HSET', key, 'ver', 1, 'state', ARGV[11], 'request', ARGV[12], 'facts', ARGV[13], 'tenant', tenant, 'class', class, 'place', place,
  'score', score, 'status', QUEUED, 'created', created, 'deadline', deadline)
call('XADD', P .. 'events:' .. id, '1-0', 'k', 'state', 'e', ARGV[14])
for upload in string.gmatch(ARGV[21], '[^\n]+') do
  call('SADD', P .. 'names:' .. id, upload)
  call('SADD', P .. 'needs:' .. upload, place)
  call('SADD', P .. 'uses:' .. upload, place)
end
call('SADD', P .. 'tenants', tenant)
moved(tenant, place, created, nil, QUEUED)
if ARGV[15] ~= '' then call('ZADD', P .. 'batch:' .. ARGV[15], created, place) end
for i = 23, #ARGV do call('ZADD', P .. 'label:' .. ARGV[i], created, place) end
if idempotency and tonumber(ARGV[9]) > 0 then call('SET', idempotency, ARGV[8] .. ' ' .. id, 'PX', ARGV[9]) end
if deadline ~= '' then call('ZADD', P .. 'deadlines', deadline, place) end
if take_inputs(id, place, ARGV[22]) == 0 then
  enter(tenant, class, score, place)
else
  call('HSET', key, 'ready', NEVER)
  call('ZADD', P .. 'delayed', NEVER, place)
end
changed(place)
return {'created', place, shown_position(tenant, score, place)}
