-- What a step has made of a job: the record, and all that follows from it in queue, lease, indexes, figures, blob references and events.
-- The step was worked out from version `ver`: nothing happens if the record is at another one by now.
-- ARGV: id, ver, token of the lease that writes or '', op or '', status, lease ('keep', 'pin' or 'end'), queue ('', 'back', 'ready' of one that waited, or the time it is
--       delayed until), blob, error reason, whether others see the change ('1'), oldest sequence to keep or '',
--       of one that ends the minute, the time and when its result expires or '', each '' of another; what its tenant has used more '' or {bytes, ms of engine time, day},
--       what it shares '' or {'lead', 'force': lead whatever is kept, 'join', 'leave', 'hit', 'won' or 'verdict'; the fingerprint, or the blob of
--       a 'won' run; what that was; an entry to keep: fingerprint or '', when it expires; now}, JSON of what follows beside the job or '',
--       number of pieces of events, those (sequence of the last, bytes) ..., fields (name, value) ...
-- Answers {'done', position, to how many jobs something is owed now}, {'again', position, record}, {'lost', record}, {'busy'}, {'shared'}: what was found
-- of like jobs is so no more, or {'unknown'}.
local id, token, op, status, lease, queue = ARGV[1], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local key = key_of(id)
local was = call('HMGET', key, 'ver', 'token', 'op', 'tenant', 'class', 'place', 'score', 'status', 'created', 'blob', 'error', 'claimed',
  'owed', 'fp', 'ties', 'log', 'spilled')
if not was[1] then return {'unknown'} end
local tenant, class, place, score, created = was[4], was[5], was[6], was[7], was[9]

-- The same command once more, after its answer was lost.
if op ~= '' and was[3] == op then return {'done', position_of(record_of(key))} end
if token ~= '' and was[2] ~= token then return {'lost', record_of(key)} end
if was[1] ~= ARGV[2] then
  local record = record_of(key)
  return {'again', position_of(record), record}
end

local blob, before = ARGV[8], was[10] or ''
local events = 18 + 2 * tonumber(ARGV[18])
local share, fp, shared, keeps, keeps_until, at
if ARGV[16] ~= '' then share, fp, shared, keeps, keeps_until, at = unpack(ARGV[16]) end
if (share == 'lead' or share == 'force' or share == 'join' or share == 'hit') and not share_stands(share, fp, id, blob, at) then return {'shared'} end
-- Its run goes on for others, and now that is over too.
local left_run = terminal(was[8]) and was[2]
if blob ~= before then
  if lease == 'pin' and tonumber(call('ZSCORE', P .. 'deleting', blob) or '0') > now() then return {'busy'} end
  if blob ~= '' then refer(blob, place) end
  if before ~= '' then unrefer(before, place) end
end

if blob ~= before then
  local last = #ARGV
  ARGV[last + 1], ARGV[last + 2] = 'blob', blob
end
local log = tell(id, ARGV, 19, events, was[16], was[17])
if log then
  call('HSET', key, 'ver', was[1] + 1, 'op', op ~= '' and op or was[3] or '', 'status', status, 'log', log, unpack(ARGV, events + 1))
else
  call('HSET', key, 'ver', was[1] + 1, 'op', op ~= '' and op or was[3] or '', 'status', status, unpack(ARGV, events + 1))
end
-- From here on the state says that the job was claimed.
if lease == 'end' and was[2] then
  call('HDEL', key, 'claimed', 'token')
elseif was[12] then
  call('HDEL', key, 'claimed')
end
local owed = 0
if share and keeps ~= '' then cache_put(keeps, fp, shared, keeps_until) end
if was[14] and ((lease == 'end' and share ~= 'join' and queue ~= 'ready') or share == 'leave') then
  owed = leave_flight(id, place, was[14], share, fp, shared)
end
if share == 'lead' or share == 'force' or share == 'join' then enter_flight(share, fp, id, place) end
if share == 'join' then
  -- The tenant is not charged for the claim.
  local start, active = start_of(tenant)
  set_start(tenant, start - 1 / weight_of(tenant), active)
end
if terminal(was[8]) and not was[2] and before ~= '' and blob == '' and not call('HGET', key, 'keeps') then
  for _, kept in ipairs(call('SMEMBERS', P .. 'cached:' .. before)) do cache_drop(kept) end
end

local queued, was_queued = status == QUEUED and lease == 'end', was[8] == QUEUED and not was[2]
if lease == 'end' and was[2] then
  HELD[was[2]] = false
  put_score(P .. 'leases', was[2], false)
  rise(P .. 'running', tenant, -1)
  -- Jobs of its own may have waited for this one.
  if most_of(tenant) then wake() end
end
if was_queued and not queued then
  leave(tenant, class, place)
  put_score(P .. 'deadlines', place, false)
elseif queued and not was_queued then
  if queue == 'back' then
    give_back(tenant, class, score, place)
  else
    call('ZADD', P .. 'delayed', queue, place)
    wake()
  end
  local deadline = call('HGET', key, 'deadline')
  if deadline and deadline ~= '' then put_score(P .. 'deadlines', place, deadline) end
elseif queue == 'ready' then
  paid(id, place)
  leave(tenant, class, place)
  enter(tenant, class, score, place)
end

moved(tenant, place, created, was[8], status)
local reason, reason_was = ARGV[9], was[11] or ''
if reason ~= reason_was then
  call('HSET', key, 'error', reason)
  if reason_was ~= '' then put_score(P .. 'error:' .. reason_was, place, false) end
  if reason ~= '' then put_score(P .. 'error:' .. reason, place, created) end
end
if terminal(status) and not terminal(was[8]) then
  if was[13] then paid(id, place) end
  if was[15] then
    uploads_ended(id, place)
    inputs_ended(id, place)
    owed = owed + tell_waiters(id, status == '3' and blob or '')
  end
  count_end(tonumber(ARGV[12]), status)
  -- When what has ended goes.
  put_score(P .. 'ended_jobs', place, ARGV[13])
  if ARGV[14] ~= '' then put_score(P .. 'expiring', place, ARGV[14]) end
elseif terminal(was[8]) and not (left_run and lease == 'end') then
  -- The only change of a job that has ended is its purge, and nothing of it has changed where a run is over that went on for others.
  if not call('HGET', key, 'keeps') then uploads_purged(id, place) end
  put_score(P .. 'expiring', place, false)
end

if ARGV[15] ~= '' then use(tenant, tonumber(ARGV[15][1]), tonumber(ARGV[15][2]), ARGV[15][3]) end

for i = 20, events, 2 do call('PUBLISH', P .. 'watch:' .. id, ARGV[i]) end
if ARGV[11] ~= '' then trim(id, ARGV[11]) end
if ARGV[10] == '1' then changed(place) end
local effects = ARGV[17] ~= '' and cjson.decode(ARGV[17]) or {}
if effects.hook then hook_add(effects.hook, id, tenant, effects.at) end
if effects.batch then batch_moved(effects.batch, was[8], status, effects.done, effects.at) end
-- The holder is told at once; if this is lost, its next renewal says it.
if token == '' and lease == 'keep' and was[2] and not terminal(status) then
  local dot = string.find(was[2], '.', 1, true)
  call('PUBLISH', P .. 'holder:' .. string.sub(was[2], 1, dot - 1), was[2])
end
if queued then return {'done', shown_position(tenant, score, place), owed} end
return {'done', status == QUEUED and 0, owed}
