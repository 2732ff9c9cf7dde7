-- Put after lib.lua. Where a job's events lie: each write's are one StoredEvents (event-log.ts), one after another in the record's field `log` as long as that is short, and from the
-- first one that does not fit in the stream events:ID, as entries whose id is the sequence of the last event. A stream takes 4 KiB from its first entry on, and most jobs
-- have few events.
--
-- In a record: log; spilled  the first entry of the stream. A record of before schema 4 has neither, and all events in the stream.
local SHORT = 1024

local function add(list, name, value)
  local count = #list
  list[count + 1], list[count + 2] = name, value
end

-- Keeps the events of a write: {sequence of the last, bytes ...}. What that changes in the record is added to `fields`.
local function tell(id, events, log, spilled, fields)
  if #events == 0 then return end
  local was = log
  for i = 1, #events, 2 do
    if log and not spilled and #log + #events[i + 1] <= SHORT then
      log = log .. events[i + 1]
    else
      if log and not spilled then
        spilled = events[i]
        add(fields, 'spilled', spilled)
      end
      call('XADD', P .. 'events:' .. id, events[i] .. '-0', 'events', events[i + 1])
    end
  end
  if log ~= was then add(fields, 'log', log) end
end

-- Of a job that has many only those from a sequence on are kept.
local function trim(id, oldest)
  call('XTRIM', P .. 'events:' .. id, 'MINID', oldest .. '-0')
  local spilled = call('HGET', key_of(id), 'spilled')
  if spilled and tonumber(spilled) < tonumber(oldest) then call('HDEL', key_of(id), 'log') end
end
