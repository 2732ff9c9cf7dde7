-- What receivers are to be told, until they have been. Written in the steps that are told.
CREATE TABLE webhooks (
  -- Order of the steps.
  seq INTEGER PRIMARY KEY,
  delivery_id TEXT NOT NULL UNIQUE,
  job_id TEXT NOT NULL,
  tenant TEXT NOT NULL,
  url TEXT NOT NULL,
  host TEXT NOT NULL,
  status INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  since_ms INTEGER NOT NULL,
  -- When it is tried next; NULL: it waits for another one of its job, or is dead.
  due_ms INTEGER,
  dead INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  error TEXT,
  -- facefusion.jobs.v1.Job without its request.
  state BLOB NOT NULL
) STRICT;
CREATE INDEX webhooks_by_job ON webhooks (job_id, dead, seq);
CREATE INDEX webhooks_by_tenant ON webhooks (tenant, dead, seq);
CREATE INDEX webhooks_due ON webhooks (host, due_ms) WHERE due_ms IS NOT NULL;

-- When the first delivery of each host is due: a host that is slow is passed over without a look at what waits for it.
CREATE TABLE webhook_hosts (
  host TEXT PRIMARY KEY,
  due_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_hosts_due ON webhook_hosts (due_ms);
