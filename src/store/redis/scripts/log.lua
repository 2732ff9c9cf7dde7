-- Put after lib.lua. Where a job's events lie: each write's are one StoredEvents (event-log.ts), one after another in the record's field `log` as long as that is short, and from the
-- first one that does not fit in the stream events:ID, as entries whose id is the sequence of the last event. A stream takes 4 KiB from its first entry on, and most jobs
-- have few events.
--
-- In a record: log; spilled  the first entry of the stream. A record of before schema 4 has neither, and all events in the stream.
local SHORT = 1024

-- Keeps the events of a write, (sequence of the last, bytes) ... in `list` from `first` to `last`. Answers what `log` is to be now; nothing: as it was.
local function tell(id, list, first, last, log, spilled)
  local changed = false
  for i = first, last, 2 do
    if log and not spilled and #log + #list[i + 1] <= SHORT then
      log, changed = log .. list[i + 1], true
    else
      if log and not spilled then
        spilled = list[i]
        call('HSET', key_of(id), 'spilled', spilled)
      end
      call('XADD', P .. 'events:' .. id, list[i] .. '-0', 'events', list[i + 1])
    end
  end
  return changed and log
end

-- Of a job that has many only those from a sequence on are kept.
local function trim(id, oldest)
  call('XTRIM', P .. 'events:' .. id, 'MINID', oldest .. '-0')
  local spilled = call('HGET', key_of(id), 'spilled')
  if spilled and tonumber(spilled) < tonumber(oldest) then call('HDEL', key_of(id), 'log') end
end
