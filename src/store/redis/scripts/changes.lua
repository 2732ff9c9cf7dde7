-- Jobs changed after a change number, in the order of their latest change.
-- ARGV: change number, most
-- Answers {{change, position, record} ...}.
local list = call('ZRANGEBYSCORE', P .. 'changes', '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local changes = {}
for i = 1, #list, 2 do
  local record = record_of(key_of(id_of(list[i])))
  if record[1] then changes[#changes + 1] = {list[i + 1], position_of(record), record} end
end
return changes
