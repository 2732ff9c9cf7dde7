-- Receivers are counted by tenant, so that one tenant's, however many and however slow, hold up nobody else's.
DROP INDEX webhooks_due;
CREATE INDEX webhooks_due ON webhooks (tenant, host, due_ms) WHERE due_ms IS NOT NULL;

-- When the first delivery to each host is due: a host that is slow is passed over without a look at what waits for it.
DROP TABLE webhook_hosts;
CREATE TABLE webhook_hosts (
  tenant TEXT NOT NULL,
  host TEXT NOT NULL,
  due_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, host)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_hosts_due ON webhook_hosts (tenant, due_ms);
INSERT INTO webhook_hosts SELECT tenant, host, min(due_ms) FROM webhooks WHERE due_ms IS NOT NULL GROUP BY tenant, host;

-- When the first of each tenant is.
CREATE TABLE webhook_tenants (
  tenant TEXT PRIMARY KEY,
  due_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_tenants_due ON webhook_tenants (due_ms);
INSERT INTO webhook_tenants SELECT tenant, min(due_ms) FROM webhook_hosts GROUP BY tenant;
