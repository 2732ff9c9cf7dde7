-- One job in, or the job that its idempotency key stands for.
-- ARGV: id, tenant, class, score, created, deadline or '', idempotency key or '', its digest, how long it is kept, the tenant's limit,
--       state, request, facts, first event, batch or '', how many of the tenant's jobs may be held, '' for any number, '-' as before, day, and of the tenant's usage the most
--       bytes or '' and the most ms of engine time that day or '', now, uploads that it names (one a line), jobs whose
--       results it takes (one a line: `ID BLOB`, `ID ` of one that has not ended) or 'refused', JSON of what it has to
--       tell or '', labels...
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

local queued = count_of(queue_of(tenant))
if queued >= tonumber(ARGV[10]) then return {'full', queued} end

local used = over_usage(tenant, ARGV[17], ARGV[18], ARGV[19])
if used then return used end
local upload = missing_upload(ARGV[21], tenant, ARGV[20])
if upload then return {'upload', upload} end
if ARGV[22] == 'refused' then return {'refused'} end
if not inputs_stand(tenant, ARGV[22]) then return {'moved'} end

place = insert({
  id = id, tenant = tenant, class = class, score = score, created = created, deadline = deadline, state = ARGV[11], request = ARGV[12], facts = ARGV[13],
  event = ARGV[14], batch = ARGV[15], uploads = ARGV[21], inputs = ARGV[22], effects = ARGV[23],
  labels = {unpack(ARGV, 24)},
})
set_most(tenant, ARGV[16])
if idempotency and tonumber(ARGV[9]) > 0 then call('SET', idempotency, ARGV[8] .. ' ' .. id, 'PX', ARGV[9]) end
return {'created', place, shown_position(tenant, score, place)}
