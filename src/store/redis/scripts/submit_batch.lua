-- All jobs of a batch in, or none, or the batch that its idempotency key stands for.
-- ARGV: batch, tenant, created, idempotency key or '', its digest, how long it is kept, the tenant's limit, how many of the tenant's jobs may be held
--       as in submit.lua, day, and of the tenant's usage the most bytes or '' and the most ms of engine time that day or '', now, ms that a failure leaves the
--       running rest or '', members, number of jobs, 'refused' where results are taken that may not be or '', then of each job, in the order in which they come in: id, class, score, deadline or '', state,
--       request, facts, first event, uploads that it names (one a line), jobs whose results it takes as in submit.lua, those among them that are of
--       the batch, what it has to tell, number of labels, labels...
-- Answers {'created'}, {'known', batch}, {'reused', id}, {'full', queued}, {'used', bytes, ms} {'upload', id of the job, id of the upload} {'refused'} or {'moved'}, as in submit.lua.
local batch, tenant, created = ARGV[1], ARGV[2], ARGV[3]
local key = P .. 'batches:' .. batch

-- The same command once more, after its answer was lost.
if call('EXISTS', key) == 1 then return {'created'} end

local idempotency = ARGV[4] ~= '' and P .. 'idempotency:' .. #tenant .. ':' .. tenant .. ':' .. ARGV[4]
if idempotency then
  local known = call('GET', idempotency)
  if known then
    local at = string.find(known, ' ', 1, true)
    local other = string.sub(known, at + 1)
    if string.sub(known, 1, at - 1) ~= ARGV[5] then return {'reused', other} end
    if call('EXISTS', P .. 'batches:' .. other) == 1 then return {'known', other} end
  end
end

local jobs = {}
local at = 17
for i = 1, tonumber(ARGV[15]) do
  local labels = tonumber(ARGV[at + 12])
  jobs[i] = {
    id = ARGV[at], tenant = tenant, class = ARGV[at + 1], score = ARGV[at + 2], created = created, deadline = ARGV[at + 3], state = ARGV[at + 4],
    request = ARGV[at + 5], facts = ARGV[at + 6], event = ARGV[at + 7], uploads = ARGV[at + 8], batch = batch, outside = ARGV[at + 9],
    inputs = ARGV[at + 9] .. '\n' .. ARGV[at + 10], effects = ARGV[at + 11],
    labels = {unpack(ARGV, at + 13, at + 12 + labels)},
  }
  at = at + 13 + labels
end

local queued = count_of(queue_of(tenant))
if queued + #jobs > tonumber(ARGV[7]) then return {'full', queued} end
local used = over_usage(tenant, ARGV[9], ARGV[10], ARGV[11])
if used then return used end
for _, job in ipairs(jobs) do
  local upload = missing_upload(job.uploads, tenant, ARGV[12])
  if upload then return {'upload', job.id, upload} end
end
if ARGV[16] == 'refused' then return {'refused'} end
for _, job in ipairs(jobs) do
  if not inputs_stand(tenant, job.outside) then return {'moved'} end
end

set_most(tenant, ARGV[8])
call('HSET', key, 'tenant', tenant, 'created', created, 'jobs', #jobs, QUEUED, #jobs, 'grace', ARGV[13], 'key', ARGV[4])
call('SET', P .. 'members:' .. batch, ARGV[14])
for _, job in ipairs(jobs) do insert(job) end
if idempotency and tonumber(ARGV[6]) > 0 then call('SET', idempotency, ARGV[5] .. ' ' .. batch, 'PX', ARGV[6]) end
return {'created'}
