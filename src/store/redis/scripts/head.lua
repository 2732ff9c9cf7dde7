-- Put before every script. Owns the names of keys. KEYS[1] is the prefix with the fleet's hash tag, so that every key of
-- a fleet is in one slot of a cluster; KEYS[2] is nobody's, and keeps a script from a slot that is being moved (connection.ts). Always true: one script makes one or more steps of a kind one after another, each as if it were alone, and what
-- it leaves is whole. What steps of a kind would read or write over and over is read once (the tables in capitals below) and written once, in `settle` (lib.lua).
--
--   job:ID      hash, the record        events:ID   stream, see log.lua              ready:TENANT         zset of places by score
--   held        hash, see claim.lua     leases      zset of tokens by expiry         class:TENANT:CLASS   the same, of one class
--   delayed     zset of places by time  deadlines   zset of places by time           classes:TENANT       set of classes that have a ready job
--   flows       zset of tenants with ready jobs by virtual start                     idle                 virtual starts of the others
--   jobs:TENANT:STATUS, label:LABEL, batch:ID, error:REASON                          zsets of places by time of creation
--   usage:TENANT  hash: bytes, day, gpu (ms on that day)      running  hash of jobs held by tenant      most  hash of how many may be
--   batches:BATCH  hash: counts by status, done, tenant, grace ...     members:BATCH  its jobs, as JSON     stopping  hash batch -> ms, to be canceled
--   ended_jobs  zset of places by time of end       expiring  zset of places by the time that their results go
--   upload:ID   hash     uploads:expiring  zset of uploads by expiry     uploads:deleting  set     uploads:count, uploads:bytes  hashes by tenant
--   needs:UPLOAD, uses:UPLOAD  sets of places: jobs that have not ended, that are not purged       names:ID  set of the uploads that a job names
--   inputs:ID, waiters:ID, owed: see chains.lua      cache:FINGERPRINT, flight:FINGERPRINT, ...: see flights.lua
--   changes     zset of places by change number       refs:BLOB, unreferenced, deleting, meta, weights, tenants, passed, nodes
--   drains      hash node -> JSON of what of it is out of service
--
-- A place is a number of 14 digits that rises with each submission, and the job's id: members of equal score keep the order of submission.
local P = KEYS[1]
-- The arguments of all steps come packed as one list: of each step how many, and those. A list for each would be made anew, and grow, one by one.
local PACKED = cmsgpack.unpack(ARGV[1])
-- Where in it each step begins.
local STEPS = {}
do
  local at = 1
  while PACKED[at] do
    STEPS[#STEPS + 1] = at
    at = at + PACKED[at] + 1
  end
end
local call = redis.call

local QUEUED, PROCESSING, FAILED = '1', '2', '4'
-- `ties`: there is something of the job in names:ID, inputs:ID or waiters:ID.
local RECORD = {'ver', 'state', 'request', 'facts', 'tenant', 'place', 'score', 'status', 'token', 'blob', 'claimed', 'deadline', 'op', 'owed', 'fp', 'riders', 'joined', 'ties'}
local TIES = #RECORD
