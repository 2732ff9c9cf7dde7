-- How batches are, and the canceling of what is left of them.
-- ARGV: 'view', batch, '1' where its members are wanted | 'cancel', batch, ms for running jobs to stop, now | 'stopping' | 'stopped', batch | 'left', batch
-- Answers for 'view' {fields..., members or false} or false, for 'cancel' 1 or 0 where all had ended, for 'stopping' {batch, ms ...},
-- for 'left' the ids of its jobs, those first that came in last.
local act, id = ARGV[1], ARGV[2]
if act == 'view' then
  local view = call('HMGET', P .. 'batches:' .. id, 'tenant', 'jobs', '1', '2', '3', '4', '5', '6', 'done', 'created', 'finished', 'grace', 'cancel')
  if not view[1] then return false end
  view[#view + 1] = ARGV[3] == '1' and call('GET', P .. 'members:' .. id)
  return view
end
if act == 'cancel' then return stop_batch(id, ARGV[3], ARGV[4]) and 1 or 0 end
if act == 'stopping' then return call('HGETALL', P .. 'stopping') end
if act == 'stopped' then return call('HDEL', P .. 'stopping', id) end
local ids = call('ZREVRANGE', P .. 'batch:' .. id, 0, -1)
for i, place in ipairs(ids) do ids[i] = id_of(place) end
return ids
