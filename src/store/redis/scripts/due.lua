-- What has had its time: jobs whose results expire by then, and jobs that had ended by then; the longest due first.
-- ARGV: time for results, time for ends, most of each. Answers {{id ...}, {id ...}}.
local function due(index, by)
  local ids = {}
  for i, place in ipairs(call('ZRANGEBYSCORE', P .. index, '-inf', by, 'LIMIT', 0, ARGV[3])) do ids[i] = id_of(place) end
  return ids
end
return {due('expiring', ARGV[1]), due('ended_jobs', ARGV[2])}
