-- What a node and its fleet need at every turn of the clock, in one call: renews all leases of the node, makes ready what has waited for its time,
-- and tells which leases and deadlines are past, for whoever asks to make good.
-- ARGV: lease in ms, most past ones to tell, tokens...
-- Answers {now, when something is next due or false, {state of each token: 0 lost, 1 renewed, 2 cancel requested}, {token, id ...}, {id ...}, {id ...}}; the last
-- are those that something is owed to.
local at = now()
local states = {}
for i = 3, #ARGV do
  local held = call('HGET', P .. 'held', ARGV[i])
  if held then
    call('ZADD', P .. 'leases', at + tonumber(ARGV[1]), ARGV[i])
    states[i - 2] = call('HEXISTS', key_of(held_id(held)), 'cancel') == 1 and 2 or 1
  else
    states[i - 2] = 0
  end
end
promote(at)
local expired = {}
for _, token in ipairs(call('ZRANGEBYSCORE', P .. 'leases', '-inf', at, 'LIMIT', 0, ARGV[2])) do
  expired[#expired + 1] = token
  local held = call('HGET', P .. 'held', token)
  expired[#expired + 1] = held and held_id(held)
end
local overdue = {}
for _, place in ipairs(call('ZRANGEBYSCORE', P .. 'deadlines', '-inf', at, 'LIMIT', 0, ARGV[2])) do overdue[#overdue + 1] = id_of(place) end
local due = false
for _, name in ipairs({'delayed', 'leases', 'deadlines'}) do
  local first = call('ZRANGE', P .. name, 0, 0, 'WITHSCORES')[2]
  if first and (not due or tonumber(first) < tonumber(due)) then due = first end
end
local owed = {}
for _, place in ipairs(call('ZRANGE', P .. 'owed', 0, ARGV[2] - 1)) do owed[#owed + 1] = id_of(place) end
return {at, due, states, expired, overdue, owed}
