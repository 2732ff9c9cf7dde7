-- Put after lib.lua. Jobs that take the results of others, and what is owed to jobs that waited. A script cannot write a job's state, which is a
-- message: it does what must not be late (references to blobs, what waits for what) and notes the rest as owed; whoever made the step writes it next,
-- and if that process dies, any other at its next turn of the clock.
--
--   inputs:ID   hash: a job whose result it takes -> the blob, or '' while it waits     waiters:ID  zset of places of the jobs that wait for it
--   owed        zset of places of jobs that something is owed to, by the time since when
--
-- In a record: ties  of both sides; waits  for how many jobs; owed  'ready', or 'failed ID': that job has ended without a result. Members of refs:BLOB are the place of a
-- job whose result it is, and 'in:' and the place of one that takes it.

-- When a job that waits for another one is ready: not by the clock.
local NEVER = '9007199254740991'

local function refer(blob, member)
  call('SADD', P .. 'refs:' .. blob, member)
  REFERRED[blob] = true
end

local function unrefer(blob, member)
  call('SREM', P .. 'refs:' .. blob, member)
  if call('EXISTS', P .. 'refs:' .. blob) == 0 then
    call('SADD', P .. 'unreferenced', blob)
    REFERRED[blob] = nil
  end
end

local function owe(place, what)
  local key = key_of(id_of(place))
  call('HSET', key, 'owed', what)
  call('HINCRBY', key, 'ver', 1)
  call('ZADD', P .. 'owed', now(), place)
end

local function paid(id, place)
  call('ZREM', P .. 'owed', place)
  call('HDEL', key_of(id), 'owed')
end

-- Whether the jobs whose results a new one takes are still as its submitter saw them: `ID BLOB`, or `ID ` of one that has not ended.
local function inputs_stand(tenant, inputs)
  for id, blob in string.gmatch(inputs, '([^\n ]+) ([^\n]*)') do
    local found = call('HMGET', key_of(id), 'tenant', 'status', 'blob')
    if found[1] ~= tenant then return false end
    if blob == '' then
      if terminal(found[2]) then return false end
    elseif not terminal(found[2]) or found[3] ~= blob then
      return false
    end
  end
  return true
end

-- Answers for how many it waits.
local function take_inputs(id, place, inputs)
  local waits = 0
  for of, blob in string.gmatch(inputs, '([^\n ]+) ([^\n]*)') do
    call('HSET', P .. 'inputs:' .. id, of, blob)
    if blob == '' then
      waits = waits + 1
      call('ZADD', P .. 'waiters:' .. of, 0, place)
      call('HSET', key_of(of), 'ties', 1)
    else
      refer(blob, 'in:' .. place)
    end
  end
  if waits > 0 then call('HSET', key_of(id), 'waits', waits) end
  return waits
end

-- A job has ended: it needs its inputs no more.
local function inputs_ended(id, place)
  local inputs = call('HGETALL', P .. 'inputs:' .. id)
  for i = 1, #inputs, 2 do
    if inputs[i + 1] == '' then call('ZREM', P .. 'waiters:' .. inputs[i], place) else unrefer(inputs[i + 1], 'in:' .. place) end
  end
  call('DEL', P .. 'inputs:' .. id)
end

-- A job has ended, with a result or without (''). Answers to how many jobs something is owed now.
local function tell_waiters(id, blob)
  local waiters, owed = call('ZRANGE', P .. 'waiters:' .. id, 0, -1), 0
  for _, place in ipairs(waiters) do
    local waiter = id_of(place)
    if blob == '' then
      owe(place, 'failed ' .. id)
      owed = owed + 1
    else
      call('HSET', P .. 'inputs:' .. waiter, id, blob)
      refer(blob, 'in:' .. place)
      if call('HINCRBY', key_of(waiter), 'waits', -1) == 0 then
        owe(place, 'ready')
        owed = owed + 1
      end
    end
  end
  call('DEL', P .. 'waiters:' .. id)
  return owed
end
