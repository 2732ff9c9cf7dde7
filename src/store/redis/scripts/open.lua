-- Makes the store where there is none. Weights are the fleet's: who opens with some sets them for all.
-- ARGV: schema, secret for a new store, '1' where weights follow, weights (tenant, weight) ...
-- Answers {schema, secret, now, the schema that it is being brought to or false}.
local meta = call('HMGET', P .. 'meta', 'schema', 'migrating')
local schema = meta[1]
if not schema then
  call('HSET', P .. 'meta', 'schema', ARGV[1], 'secret', ARGV[2])
  schema = ARGV[1]
end
if schema == ARGV[1] and not meta[2] and ARGV[3] == '1' then
  call('DEL', P .. 'weights')
  if #ARGV > 3 then call('HSET', P .. 'weights', unpack(ARGV, 4)) end
end
return {schema, call('HGET', P .. 'meta', 'secret'), now(), meta[2]}
