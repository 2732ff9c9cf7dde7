-- The events of one write are one entry of a job's stream.
--   before: events:ID   entries SEQUENCE-0: `k`, kind, `e`, the event
--   after:  events:ID   entries LAST-0: `events`, a StoredEvents
-- Entries that are there stay as they are, and are read; older versions would not read those that come.
return 0
