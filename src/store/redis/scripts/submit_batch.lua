-- All jobs of a batch in, or none, or the batch that its idempotency key stands for.
-- ARGV: batch, tenant, created, the tenant's limit, how many of the tenant's jobs may be held as in submit.lua, what it may have used of the rest (intake.lua), jobs in the
--       order in which they come in (intake.lua), 'refused' where results are taken that may not be or '', '' or {idempotency key, its digest, how long it is kept},
--       ms that a failure leaves the running rest or '', members
-- Answers {'created'}, {'known', batch}, {'reused', id}, {'full', queued}, {'used', bytes, ms} {'upload', id of the job, id of the upload} {'refused'} or {'moved'}, as in submit.lua.
local batch, tenant, created, jobs, named = ARGV[1], ARGV[2], ARGV[3], ARGV[7], ARGV[9] ~= '' and ARGV[9]
local key = P .. 'batches:' .. batch

-- The same command once more, after its answer was lost.
if call('EXISTS', key) == 1 then return {'created'} end

local idempotency = named and P .. 'idempotency:' .. #tenant .. ':' .. tenant .. ':' .. named[1]
if named then
  local known = call('GET', idempotency)
  if known then
    local at = string.find(known, ' ', 1, true)
    local other = string.sub(known, at + 1)
    if string.sub(known, 1, at - 1) ~= named[2] then return {'reused', other} end
    if call('EXISTS', P .. 'batches:' .. other) == 1 then return {'known', other} end
  end
end

local queued = count_of(queue_of(tenant))
if queued + #jobs > tonumber(ARGV[4]) then return {'full', queued} end
local used = over_usage(tenant, ARGV[6])
if used then return used end
for _, job in ipairs(jobs) do
  local upload = missing_upload(job[10], tenant, created)
  if upload then return {'upload', job[1], upload} end
end
if ARGV[8] == 'refused' then return {'refused'} end
for _, job in ipairs(jobs) do
  if not inputs_stand(tenant, job[11]) then return {'moved'} end
end

set_most(tenant, ARGV[5])
call('HSET', key, 'tenant', tenant, 'created', created, 'jobs', #jobs, QUEUED, #jobs, 'grace', ARGV[10], 'key', named and named[1] or '')
call('SET', P .. 'members:' .. batch, ARGV[11])
for _, job in ipairs(jobs) do insert(tenant, created, job, 1) end
if named and tonumber(named[3]) > 0 then call('SET', idempotency, named[2] .. ' ' .. batch, 'PX', named[3]) end
return {'created'}
