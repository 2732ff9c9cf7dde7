-- What a tenant has used. ARGV: tenant, day. Answers {queued, held, bytes, ms of engine time that day}.
local usage = call('HMGET', P .. 'usage:' .. ARGV[1], 'bytes', 'day', 'gpu')
return {
  call('ZCARD', P .. 'jobs:' .. ARGV[1] .. ':' .. QUEUED),
  tonumber(call('HGET', P .. 'running', ARGV[1]) or '0'),
  tonumber(usage[1] or '0'),
  usage[2] == ARGV[2] and tonumber(usage[3]) or 0,
}
