-- Records as they are, each with its position in the queue.
-- ARGV: id, version that the caller has or '', ...
-- Answers for each false where there is none, {ver, position} where the version is known, else {ver, position, record}.
local views = {}
for i = 1, #ARGV, 2 do
  local record = record_of(key_of(ARGV[i]))
  local view = false
  if record[1] then
    view = {record[1], position_of(record)}
    if record[1] ~= ARGV[i + 1] then view[3] = record end
  end
  views[#views + 1] = view
end
return views
