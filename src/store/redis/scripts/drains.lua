-- What was taken out of service: a hash of JSON by node. A node of which nothing is out has no field.
-- ARGV: 'find', node | 'change', node, what it was worked out from or '', what it becomes or ''
-- Answers for 'find' the JSON or false; for 'change' false where it was made, else what is there instead ('': nothing).
local key = P .. 'drains'
local is = call('HGET', key, ARGV[2])
if ARGV[1] == 'find' then return is end
local was, becomes = ARGV[3], ARGV[4]
-- Perhaps by this very command, whose answer was lost.
if (is or '') == becomes then return false end
if (is or '') ~= was then return is or '' end
if becomes == '' then
  call('HDEL', key, ARGV[2])
else
  call('HSET', key, ARGV[2], becomes)
end
call('PUBLISH', P .. 'drains', '')
return false
