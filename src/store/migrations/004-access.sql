-- API keys. A key that has ended stays, so that lists and the audit log can be read later.
CREATE TABLE api_keys (
  key_id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  tenant TEXT NOT NULL,
  -- Names with blanks between.
  scopes TEXT NOT NULL,
  tier TEXT NOT NULL,
  -- SHA-256 of the whole key.
  hash BLOB NOT NULL,
  created_ms INTEGER NOT NULL,
  expires_ms INTEGER,
  revoked_ms INTEGER,
  last_used_ms INTEGER,
  replaced_by TEXT
) STRICT, WITHOUT ROWID;

-- What tenants have used. A tenant without a row has used nothing.
CREATE TABLE tenant_usage (
  tenant TEXT PRIMARY KEY,
  -- Of results that are not purged.
  stored_bytes INTEGER NOT NULL,
  -- Days since 1970 (UTC), and the time that slots were held in the day.
  day INTEGER NOT NULL,
  gpu_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
