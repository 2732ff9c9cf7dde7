-- The record of a job says whether something of it lies in names:ID, inputs:ID or waiters:ID, so that a step need not look.
--   before: nothing said     after: `ties` in the records of those that have not ended
-- Events that are there stay in their streams; those of jobs that come begin in the record. What `held` has of a token ends with its lease.
local work = P .. 'ties:left'
if redis.call('HSETNX', P .. 'meta', 'ties', 1) == 1 then
  for _, tenant in ipairs(redis.call('SMEMBERS', P .. 'tenants')) do
    for _, status in ipairs({'1', '2'}) do redis.call('ZUNIONSTORE', work, 2, work, P .. 'jobs:' .. tenant .. ':' .. status) end
  end
end
local places = redis.call('ZPOPMIN', work, MOST)
for i = 1, #places, 2 do
  local id = string.sub(places[i], 15)
  if redis.call('EXISTS', P .. 'names:' .. id, P .. 'inputs:' .. id, P .. 'waiters:' .. id) > 0 then redis.call('HSET', P .. 'job:' .. id, 'ties', 1) end
end
if #places == 0 then redis.call('HDEL', P .. 'meta', 'ties') end
return #places / 2
