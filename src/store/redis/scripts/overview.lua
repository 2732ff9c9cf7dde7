-- How many jobs there are, by tenant and status. Answers {tenant, queued, processing, succeeded, failed, canceled, refused, when the job that has been
-- queued for longest was submitted or false} ....
local rows = {}
for _, tenant in ipairs(call('SMEMBERS', P .. 'tenants')) do
  local row = {tenant}
  for status = 1, 6 do row[status + 1] = call('ZCARD', P .. 'jobs:' .. tenant .. ':' .. status) end
  row[8] = call('ZRANGE', P .. 'jobs:' .. tenant .. ':' .. QUEUED, 0, 0, 'WITHSCORES')[2] or false
  rows[#rows + 1] = row
end
return rows
