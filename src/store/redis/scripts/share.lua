-- What there is for like jobs. ARGV: 'look', fingerprint, now | 'joined', fingerprint | 'expire', now, most
-- Answers for 'look' {result or false, id of the job whose run it is or false}, for 'joined' {id ...}, for 'expire' how many entries have gone.
if ARGV[1] == 'look' then
  local _, result = cached(ARGV[2], ARGV[3])
  return {result or false, call('GET', P .. 'flight:' .. ARGV[2])}
end
if ARGV[1] == 'joined' then
  local ids = {}
  for i, place in ipairs(call('ZRANGE', P .. 'joined:' .. ARGV[2], 0, -1)) do ids[i] = id_of(place) end
  return ids
end
local gone = call('ZRANGEBYSCORE', P .. 'cache:expiring', '-inf', ARGV[2], 'LIMIT', 0, ARGV[3])
for _, fp in ipairs(gone) do cache_drop(fp) end
return #gone
