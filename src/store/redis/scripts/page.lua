-- Places of one page from several indexes, each newest first; whoever asks merges them. Also the number of the latest change as of now.
-- ARGV: most places of each index, time of the last place seen or '', that place, not before this time or '-inf', before this time or '+inf', index...
-- An index is the name of a key, or `jobs::STATUS` for that status of every tenant.
local most, time, place, from, to = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local upper = to == '+inf' and to or '(' .. to
local found = {}
local function look(index)
  local left = most
  local function add(list)
    for i = 1, #list, 2 do
      if left == 0 then return end
      if time == '' or list[i + 1] ~= time or list[i] < place then
        found[#found + 1] = list[i + 1]
        found[#found + 1] = list[i]
        left = left - 1
      end
    end
  end
  if time ~= '' then
    add(call('ZREVRANGEBYSCORE', P .. index, time, time, 'WITHSCORES'))
    add(call('ZREVRANGEBYSCORE', P .. index, '(' .. time, from, 'WITHSCORES', 'LIMIT', 0, left))
  else
    add(call('ZREVRANGEBYSCORE', P .. index, upper, from, 'WITHSCORES', 'LIMIT', 0, left))
  end
end
for i = 6, #ARGV do
  local status = string.match(ARGV[i], '^jobs::(%d+)$')
  if status then
    for _, tenant in ipairs(call('SMEMBERS', P .. 'tenants')) do look('jobs:' .. tenant .. ':' .. status) end
  else
    look(ARGV[i])
  end
end
return {call('GET', P .. 'change') or '0', found}
