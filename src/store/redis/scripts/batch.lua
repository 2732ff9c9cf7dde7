-- Put after lib.lua. How a batch goes on with its jobs.

-- What is left of a batch is to be canceled, running jobs within so many ms. False: nothing is left.
local function stop_batch(batch, grace, at)
  local key = P .. 'batches:' .. batch
  if call('EXISTS', key) == 0 or call('HEXISTS', key, 'finished') == 1 then return false end
  call('HSETNX', key, 'cancel', at)
  call('HSET', P .. 'stopping', batch, grace)
  return true
end

-- A job of a batch has gone on. One that failed stops the rest where that was asked for.
local function batch_moved(batch, from, to, done, at)
  local key = P .. 'batches:' .. batch
  if done ~= 0 then call('HINCRBY', key, 'done', done) end
  if from == to then return end
  call('HINCRBY', key, from, -1)
  call('HINCRBY', key, to, 1)
  if not terminal(to) then return end
  local counts = call('HMGET', key, QUEUED, PROCESSING, 'grace')
  if tonumber(counts[1] or '0') + tonumber(counts[2] or '0') == 0 then
    call('HSET', key, 'finished', at)
    call('HDEL', P .. 'stopping', batch)
  elseif to == FAILED and counts[3] and counts[3] ~= '' then
    stop_batch(batch, counts[3], at)
  end
end
