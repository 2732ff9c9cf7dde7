-- Put before every script but the one that opens the store: a process of another version, which has slept through a migration, writes nothing.
local meta = call('HMGET', P .. 'meta', 'schema', 'migrating')
if meta[2] or (meta[1] and meta[1] ~= SCHEMA) then return redis.error_reply('SCHEMA ' .. (meta[2] or meta[1])) end
