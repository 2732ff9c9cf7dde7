-- The next job in order goes to a node.
-- ARGV: token, node, lease in ms, penalty of cold models in turns, above: flow or '', score, tenant, engines (one a line) or '*', warm models (one a line), above: cold ('1' or '')
-- A class is `ENGINE|MODEL,MODEL`, either part may be empty. A node whose models are cold for a class takes it a few turns later than its own turn:
-- the penalty is finite in virtual time between tenants and in times passed over within one, so nothing starves.
-- Answers {'job', flow, score, record, blobs of the jobs whose results it takes (id, blob ...), cold ('1' or '')} or {'none', when the next delayed job is due or false}.
local token, node = ARGV[1], ARGV[2]
local penalty, above = tonumber(ARGV[4]), ARGV[5] ~= '' and tonumber(ARGV[5])
local engines, warm = '\n' .. ARGV[8] .. '\n', '\n' .. ARGV[9] .. '\n'

local at = now()
-- The same command once more, after its answer was lost.
local held = call('HGET', P .. 'held', token)
if held then
  local record = record_of(key_of(held))
  local rank = call('HMGET', key_of(held), 'flow', 'cold')
  return {'job', exact(rank[1]), record[7], record, call('HGETALL', P .. 'inputs:' .. held), rank[2] or ''}
end
promote(at)

local runs, is_warm = {}, {}
local function look(class)
  if runs[class] ~= nil then return end
  local bar = string.find(class, '|', 1, true)
  local engine = bar and string.sub(class, 1, bar - 1) or ''
  runs[class] = engine == '' or ARGV[8] == '*' or string.find(engines, '\n' .. engine .. '\n', 1, true) ~= nil
  is_warm[class] = true
  if penalty > 0 and bar then
    for model in string.gmatch(string.sub(class, bar + 1), '[^,]+') do
      if not string.find(warm, '\n' .. model .. '\n', 1, true) then is_warm[class] = false end
    end
  end
end

-- What the node would take of a tenant: {place, score, cold, class passed over}.
local function first_of(tenant)
  local first, best
  for class in pairs(classes_of(tenant)) do
    look(class)
    if runs[class] then
      local head, rank = head_of(tenant, class)
      local one = {head, rank, not is_warm[class], class}
      local function before(other) return not other or one[2] < other[2] or (one[2] == other[2] and one[1] < other[1]) end
      if before(first) then first = one end
      if is_warm[class] and before(best) then best = one end
    end
  end
  if not first or not first[3] or not best then return first end
  if tonumber(call('HGET', P .. 'passed', tenant .. ':' .. first[4]) or '0') >= penalty then return first end
  return {best[1], best[2], false, best[4], first[4]}
end

local function next_job()
  local best, key, tenant, start
  for i = 1, math.huge do
    local flow = flow_at(i)
    if not flow or (best and flow[2] >= key) then break end
    local other, its = flow[1], flow[2]
    if above and not (its < above or (its == above and other < ARGV[7])) then break end
    if not (above and other == ARGV[7]) and may_run(other) then
      local one = first_of(other)
      if one then
        if one[3] then its = its + penalty end
        if (not best or its < key) and (not above or its < above or (its == above and other < ARGV[7])) then
          best, key, tenant, start = one, its, other, flow[2]
        end
      end
    end
  end
  if best or not above then return best, key, tenant, start end
  -- The job with that rank goes back for the one that comes before it: no more of its tenant's are held than now. A warm one does not for a cold one.
  local flow = flow_of(ARGV[7])
  local one = flow[2] and first_of(ARGV[7])
  if one and (not one[3] or ARGV[10] == '1') and one[2] < tonumber(ARGV[6]) then return one, flow[1], ARGV[7], flow[1] end
end

local job, key, tenant, start = next_job()
if not job then
  WAITS = true
  local due = call('ZRANGE', P .. 'delayed', 0, 0, 'WITHSCORES')
  return {'none', due[2] or false}
end
local place, id = job[1], id_of(job[1])
if job[5] then
  call('HINCRBY', P .. 'passed', tenant .. ':' .. job[5], 1)
elseif penalty > 0 then
  call('HDEL', P .. 'passed', tenant .. ':' .. job[4])
end
take(tenant, job[4])
put_score(P .. 'deadlines', place, false)
local _, active = start_of(tenant)
if start > virtual_now() then VIRTUAL = start end
set_start(tenant, start + 1 / weight_of(tenant), active)

local record, cold = record_of(key_of(id)), job[3] and '1' or ''
record[1], record[9], record[10], record[12] = exact(record[1] + 1), token, node, exact(at)
call('HSET', key_of(id), 'ver', record[1], 'token', token, 'node', node, 'claimed', record[12], 'flow', exact(key), 'cold', cold)
HELD[token] = id
rise(P .. 'running', tenant, 1)
put_score(P .. 'leases', token, at + tonumber(ARGV[3]))
changed(place)
return {'job', exact(key), exact(job[2]), record, call('HGETALL', P .. 'inputs:' .. id), cold}
