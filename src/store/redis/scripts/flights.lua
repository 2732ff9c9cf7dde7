-- Put after chains.lua. Results kept for like jobs, and runs that they share; as `CachedResults` and `Flights` on SQLite, which say more.
--
--   cache:FINGERPRINT   hash: blob, result, expires      cache:expiring  zset of fingerprints by that      cached:BLOB  set of fingerprints
--   flight:FINGERPRINT  id of the job whose run it is    joined:FINGERPRINT  zset of places of those that joined it, all of score 0: the oldest first
--
-- In a record: fp  the fingerprint of the run that it leads or has joined; riders  how many have joined the one that it leads; owed  also 'lead KILLS',
-- 'won FACTS', 'verdict FACTS'. A member 'cache:FINGERPRINT' of refs:BLOB is an entry. What a job is owed of a won run it refers to as to an input, ':'.

local function cache_drop(fp)
  local blob = call('HGET', P .. 'cache:' .. fp, 'blob')
  if not blob then return end
  call('DEL', P .. 'cache:' .. fp)
  call('ZREM', P .. 'cache:expiring', fp)
  call('SREM', P .. 'cached:' .. blob, fp)
  unrefer(blob, 'cache:' .. fp)
end

local function cache_put(fp, blob, result, expires)
  cache_drop(fp)
  call('HSET', P .. 'cache:' .. fp, 'blob', blob, 'result', result, 'expires', expires)
  call('ZADD', P .. 'cache:expiring', expires, fp)
  call('SADD', P .. 'cached:' .. blob, fp)
  refer(blob, 'cache:' .. fp)
end

-- The entry of a fingerprint: blob, result; nothing of one that has had its time.
local function cached(fp, at)
  local entry = call('HMGET', P .. 'cache:' .. fp, 'blob', 'result', 'expires')
  if entry[1] and tonumber(entry[3]) > tonumber(at) then return entry[1], entry[2] end
end

-- Whether what a job found still is so.
local function share_stands(share, fp, id, blob, at)
  local leader = call('GET', P .. 'flight:' .. fp)
  if share == 'join' then return leader and leader ~= id end
  if share == 'hit' then return cached(fp, at) == blob end
  if share == 'lead' then return not leader and not cached(fp, at) end
  return not leader
end

local function enter_flight(share, fp, id, place)
  call('HSET', key_of(id), 'fp', fp)
  if share == 'join' then
    call('ZADD', P .. 'joined:' .. fp, 0, place)
    local leader = key_of(call('GET', P .. 'flight:' .. fp))
    call('HINCRBY', leader, 'riders', 1)
    call('HINCRBY', leader, 'ver', 1)
  else
    call('SET', P .. 'flight:' .. fp, id)
  end
end

-- Nobody wants the run any more that its first job has left: its holder is told at once, and if that is lost, with its next renewal.
local function desert(leader)
  local key = key_of(leader)
  local held = call('HMGET', key, 'status', 'token')
  if not (held[1] and terminal(held[1]) and held[2]) then return false end
  call('HSET', key, 'cancel', 1)
  call('PUBLISH', P .. 'holder:' .. string.sub(held[2], 1, string.find(held[2], '.', 1, true) - 1), held[2])
  return true
end

-- A job leaves the run `fp` that it shares. `won` and `verdict`, with what they are, go for all; else the oldest of the others goes on. Answers to how many
-- jobs something is owed.
local function leave_flight(id, place, fp, share, blob, facts)
  local key = key_of(id)
  local flight, joined = P .. 'flight:' .. fp, P .. 'joined:' .. fp
  call('HDEL', key, 'fp', 'riders', 'joined')
  local leader = call('GET', flight)
  if leader ~= id then
    call('ZREM', joined, place)
    if not leader then return 0 end
    call('HINCRBY', key_of(leader), 'riders', -1)
    call('HINCRBY', key_of(leader), 'ver', 1)
    if call('EXISTS', joined) == 0 and desert(leader) then
      call('DEL', flight)
      call('HDEL', key_of(leader), 'fp', 'riders')
    end
    return 0
  end
  local members = call('ZRANGE', joined, 0, -1)
  if share == 'won' or share == 'verdict' then
    for _, member in ipairs(members) do
      local other = id_of(member)
      call('HDEL', key_of(other), 'fp')
      if share == 'won' then
        call('HSET', P .. 'inputs:' .. other, ':', blob)
        call('HSET', key_of(other), 'ties', 1)
        refer(blob, 'in:' .. member)
      end
      owe(member, share .. ' ' .. facts)
    end
    call('DEL', flight, joined)
    return #members
  end
  if #members == 0 then
    call('DEL', flight)
    return 0
  end
  local heir = id_of(members[1])
  call('ZREM', joined, members[1])
  call('SET', flight, heir)
  call('HSET', key_of(heir), 'riders', #members - 1)
  owe(members[1], 'lead ' .. string.match(call('HGET', key, 'facts'), '^%S+ %S+ (%S+)'))
  return 1
end
