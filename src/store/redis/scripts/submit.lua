-- One job in, or the job that its idempotency key stands for.
-- ARGV: id, tenant, created, the tenant's limit, how many of the tenant's jobs may be held, '' for any number, '-' as before, what it may have used of the rest
--       (intake.lua), 'refused' where it takes results that it may not or '', '' or {idempotency key, its digest, how long it is kept}, the job (intake.lua) ...
-- Answers {'created', place, position}, {'known', position, record}, {'reused', id}, {'full', queued}, {'used', bytes, ms}, {'upload', id}, {'refused'} or {'moved'}: the
-- jobs whose results it takes are not as they were seen.
local id, tenant, created, named = ARGV[1], ARGV[2], ARGV[3], ARGV[8] ~= '' and ARGV[8]
local score, uploads, inputs = ARGV[11], ARGV[18], ARGV[19]

-- The same command once more, after its answer was lost.
if not is_new(id) then
  local place = call('HGET', key_of(id), 'place')
  if place then return {'created', place, position_of(record_of(key_of(id))) or 0} end
end

local idempotency = named and P .. 'idempotency:' .. #tenant .. ':' .. tenant .. ':' .. named[1]
if named then
  local known = call('GET', idempotency)
  if known then
    local at = string.find(known, ' ', 1, true)
    local other = string.sub(known, at + 1)
    if string.sub(known, 1, at - 1) ~= named[2] then return {'reused', other} end
    local record = record_of(key_of(other))
    if record[1] then return {'known', position_of(record), record} end
  end
end

local queued = count_of(queue_of(tenant))
if queued >= tonumber(ARGV[4]) then return {'full', queued} end

local used = over_usage(tenant, ARGV[6])
if used then return used end
local upload = missing_upload(uploads, tenant, created)
if upload then return {'upload', upload} end
if ARGV[7] == 'refused' then return {'refused'} end
if not inputs_stand(tenant, inputs) then return {'moved'} end

local place, ahead = insert(tenant, created, ARGV, 9)
set_most(tenant, ARGV[5])
if named and tonumber(named[3]) > 0 then call('SET', idempotency, named[2] .. ' ' .. id, 'PX', named[3]) end
return {'created', place, shown_position(tenant, score, place, ahead)}
