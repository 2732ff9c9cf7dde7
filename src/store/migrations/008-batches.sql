-- Jobs that were submitted together. The counts are changed by each job's own steps.
CREATE TABLE batches (
  batch_id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  idempotency_key TEXT,
  created_ms INTEGER NOT NULL,
  finished_ms INTEGER,
  jobs INTEGER NOT NULL,
  -- Jobs by status.
  queued INTEGER NOT NULL,
  processing INTEGER NOT NULL DEFAULT 0,
  succeeded INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  canceled INTEGER NOT NULL DEFAULT 0,
  refused INTEGER NOT NULL DEFAULT 0,
  -- Percent, summed over all.
  done INTEGER NOT NULL DEFAULT 0,
  -- A failed job stops the rest, running ones within so many milliseconds; NULL: it does not.
  stop_grace_ms INTEGER,
  cancel_requested_ms INTEGER,
  -- The rest is being canceled, with this time to stop; NULL when that is done.
  stopping_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX batches_stopping ON batches (batch_id) WHERE stopping_ms IS NOT NULL;

-- What never changes of a batch and is long: its jobs and what they were called, as JSON.
CREATE TABLE batch_members (
  batch_id TEXT PRIMARY KEY,
  members TEXT NOT NULL
) STRICT;
