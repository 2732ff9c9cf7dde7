-- Files that callers give. Their bytes lie elsewhere, under the same id; a row goes after its bytes have gone, so what has no row is nobody's.
CREATE TABLE uploads (
  upload_id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  -- 1 receiving, 2 whole, 3 released (kept for jobs that have not ended), 4 to be deleted
  state INTEGER NOT NULL,
  -- What counts against the tenant's quota: its size, or what has been set aside for it.
  bytes INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL,
  -- 1: what has come outlives the process that received it.
  resumable INTEGER NOT NULL,
  -- JSON: what was announced, and what came.
  facts TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX uploads_by_expiry ON uploads (expires_ms) WHERE state < 3;
CREATE INDEX uploads_by_state ON uploads (state) WHERE state IN (1, 4);

-- Sums over uploads.
CREATE TABLE upload_totals (
  tenant TEXT PRIMARY KEY,
  uploads INTEGER NOT NULL,
  bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER uploads_added AFTER INSERT ON uploads BEGIN
  INSERT INTO upload_totals VALUES (new.tenant, 1, new.bytes)
    ON CONFLICT (tenant) DO UPDATE SET uploads = uploads + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER uploads_grown AFTER UPDATE OF bytes ON uploads BEGIN
  UPDATE upload_totals SET bytes = bytes + new.bytes - old.bytes WHERE tenant = new.tenant;
END;
CREATE TRIGGER uploads_removed AFTER DELETE ON uploads BEGIN
  UPDATE upload_totals SET uploads = uploads - 1, bytes = bytes - old.bytes WHERE tenant = old.tenant;
  DELETE FROM upload_totals WHERE tenant = old.tenant AND uploads = 0;
END;

-- Which jobs name which uploads, from submit until they are purged.
CREATE TABLE upload_uses (
  upload_id TEXT NOT NULL,
  num INTEGER NOT NULL,
  -- 1: the job has ended and needs the bytes no more.
  ended INTEGER NOT NULL,
  PRIMARY KEY (upload_id, num)
) STRICT, WITHOUT ROWID;
CREATE INDEX upload_uses_by_job ON upload_uses (num);
