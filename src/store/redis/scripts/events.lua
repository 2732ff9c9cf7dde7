-- Events of jobs. ARGV: id, after which sequence, entries of the stream at most.
-- Answers {log of the record or false, entry ...}; an entry is {id, its fields}.
local id = ARGV[1]
return {call('HGET', key_of(id), 'log'), unpack(call('XRANGE', P .. 'events:' .. id, '(' .. ARGV[2] .. '-0', '+', 'COUNT', ARGV[3]))}
