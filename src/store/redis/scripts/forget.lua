-- A job that has ended has never been. ARGV: id, idempotency key or '', batch or '', labels... Answers 1, or 0 where it is no such job.
local id = ARGV[1]
-- A key stands for it no more, unless it has come to stand for another.
local function known_no_more(tenant, key, for_)
  local idempotency = P .. 'idempotency:' .. #tenant .. ':' .. tenant .. ':' .. key
  local known = key ~= '' and call('GET', idempotency)
  if known and string.sub(known, -#for_ - 1) == ' ' .. for_ then call('DEL', idempotency) end
end
local key = key_of(id)
local was = call('HMGET', key, 'tenant', 'place', 'status', 'error', 'blob', 'token')
if not was[1] or not terminal(was[3]) or was[6] then return 0 end
local tenant, place, reason, blob = was[1], was[2], was[4] or '', was[5] or ''
call('ZREM', P .. 'jobs:' .. tenant .. ':' .. was[3], place)
if reason ~= '' then call('ZREM', P .. 'error:' .. reason, place) end
if ARGV[3] ~= '' then
  call('ZREM', P .. 'batch:' .. ARGV[3], place)
  if call('EXISTS', P .. 'batch:' .. ARGV[3]) == 0 then
    known_no_more(tenant, call('HGET', P .. 'batches:' .. ARGV[3], 'key') or '', ARGV[3])
    call('DEL', P .. 'batches:' .. ARGV[3], P .. 'members:' .. ARGV[3])
  end
end
for i = 4, #ARGV do call('ZREM', P .. 'label:' .. ARGV[i], place) end
call('ZREM', P .. 'ended_jobs', place)
call('ZREM', P .. 'expiring', place)
call('ZREM', P .. 'changes', place)
if blob ~= '' then unrefer(blob, place) end
known_no_more(tenant, ARGV[2], id)
uploads_forgotten(id, place)
call('DEL', key, P .. 'events:' .. id)
return 1
