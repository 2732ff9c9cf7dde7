-- Jobs, their events, and what one atomic step must find or change beside them. Times are milliseconds since 1970 by the store's clock.

CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
  -- Order of submission; stands for the job everywhere else.
  num INTEGER PRIMARY KEY,
  job_id TEXT NOT NULL UNIQUE,
  tenant TEXT NOT NULL,
  status INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  -- Place in the tenant's queue, lower first.
  score INTEGER NOT NULL,
  -- Not to be claimed before (retry back-off).
  ready_ms INTEGER NOT NULL,
  -- START_TIMEOUT when the engine has not begun by then.
  deadline_ms INTEGER,
  max_attempts INTEGER NOT NULL,
  -- Attempts that count against max_attempts.
  spent INTEGER NOT NULL,
  -- Attempts that killed their worker.
  kills INTEGER NOT NULL,
  -- Who holds the lease. A lease does not outlive the process, so at open this says which jobs were interrupted.
  node TEXT,
  batch_id TEXT,
  error_reason TEXT,
  -- Blob of the result, until purged.
  result_key TEXT,
  -- Position in the store-wide order of changes.
  change_no INTEGER NOT NULL,
  -- Progress and log events up to this sequence are trimmed away.
  trimmed_to INTEGER NOT NULL,
  -- facefusion.jobs.v1.Job without its request, and the request, which never changes.
  state BLOB NOT NULL,
  request BLOB NOT NULL
) STRICT;

CREATE INDEX jobs_by_time ON jobs (created_ms);
CREATE INDEX jobs_by_tenant ON jobs (tenant, created_ms);
CREATE INDEX jobs_by_status ON jobs (status, created_ms);
CREATE INDEX jobs_by_tenant_status ON jobs (tenant, status, created_ms);
CREATE INDEX jobs_by_error ON jobs (error_reason, created_ms) WHERE error_reason IS NOT NULL;
CREATE INDEX jobs_by_batch ON jobs (batch_id, created_ms) WHERE batch_id IS NOT NULL;
CREATE INDEX jobs_by_result ON jobs (result_key) WHERE result_key IS NOT NULL;
CREATE INDEX jobs_held ON jobs (node) WHERE node IS NOT NULL;
CREATE UNIQUE INDEX jobs_by_change ON jobs (change_no);

-- Each label twice: 'key' and 'key=value'. Keys have no '=' in them.
CREATE TABLE labels (
  label TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  num INTEGER NOT NULL,
  PRIMARY KEY (label, created_ms, num)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
  num INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  -- 1 state, 2 progress, 3 log
  kind INTEGER NOT NULL,
  -- facefusion.jobs.v1.JobEvent
  event BLOB NOT NULL,
  PRIMARY KEY (num, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
  tenant TEXT NOT NULL,
  key TEXT NOT NULL,
  digest TEXT NOT NULL,
  job_id TEXT NOT NULL,
  expires_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_expiry ON idempotency (expires_ms);

-- Virtual start time of each tenant's next job.
CREATE TABLE flows (
  tenant TEXT PRIMARY KEY,
  virtual REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE totals (
  status INTEGER PRIMARY KEY,
  jobs INTEGER NOT NULL
) STRICT;

-- Jobs ended in each minute since 1970.
CREATE TABLE ended (
  minute INTEGER NOT NULL,
  status INTEGER NOT NULL,
  jobs INTEGER NOT NULL,
  PRIMARY KEY (minute, status)
) STRICT, WITHOUT ROWID;
