-- The next job in order goes to a node.
-- ARGV: token, lease in ms, penalty of cold models in turns, engines (one a line) or '*', warm models (one a line), above: '' or {flow, score, tenant, cold ('1' or '')}
-- `held` has of each token `ID FLOW` of its job, and ` 1` where that was cold.
-- Answers {'job', flow, score, record, blobs of the jobs whose results it takes (id, blob ...) or false, cold ('1' or '')} or {'none', when the next delayed job is due or false}.
local token = ARGV[1]
local at = now()
-- The same command once more, after its answer was lost.
local held = HELD[token] or held_by(token)
if held then
  local id, flow, cold = string.match(held, '^(%S+) (%S+) ?(1?)$')
  local record = record_of(key_of(id))
  return {'job', flow, record[7], record, call('HGETALL', P .. 'inputs:' .. id), cold}
end
promote(at)

local want = want_of(ARGV[4], ARGV[5], tonumber(ARGV[3]))
local place, score, cold, class, passed, flow, tenant, start = next_job(want, ARGV[6] ~= '' and ARGV[6])
if not place then
  WAITS = true
  local due = call('ZRANGE', P .. 'delayed', 0, 0, 'WITHSCORES')
  return {'none', due[2] or false}
end
if passed then
  call('HINCRBY', P .. 'passed', tenant .. ':' .. passed, 1)
elseif want.penalty > 0 then
  call('HDEL', P .. 'passed', tenant .. ':' .. class)
end
take(tenant, class)
local _, active = start_of(tenant)
if start > virtual_now() then VIRTUAL = start end
set_start(tenant, start + 1 / weight_of(tenant), active)

local id = id_of(place)
local key = key_of(id)
local record, marked = record_of(key), cold and '1' or ''
record[1], record[9], record[11] = record[1] + 1, token, at
call('HSET', key, 'ver', record[1], 'token', token, 'claimed', at)
HELD[token] = id .. ' ' .. exact(flow) .. (cold and ' 1' or '')
rise(P .. 'running', tenant, 1)
put_score(P .. 'leases', token, at + tonumber(ARGV[2]))
if record[12] and record[12] ~= '' then put_score(P .. 'deadlines', place, false) end
changed(place)
return {'job', flow, score, record, record[TIES] and call('HGETALL', P .. 'inputs:' .. id), marked}
