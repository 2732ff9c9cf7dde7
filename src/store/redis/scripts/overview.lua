-- How many jobs there are, by tenant and status. Answers {tenant, queued, processing, succeeded, failed, canceled, refused} ....
local rows = {}
for _, tenant in ipairs(call('SMEMBERS', P .. 'tenants')) do
  local row = {tenant}
  for status = 1, 6 do row[status + 1] = call('ZCARD', P .. 'jobs:' .. tenant .. ':' .. status) end
  rows[#rows + 1] = row
end
return rows
