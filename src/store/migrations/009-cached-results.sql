-- Results that like jobs may take, by what makes runs the same. A row refers to its blob.
CREATE TABLE cached_results (
  fingerprint TEXT PRIMARY KEY,
  key TEXT NOT NULL,
  -- facefusion.jobs.v1.MediaResult
  result BLOB NOT NULL,
  expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX cached_results_by_key ON cached_results (key);
CREATE INDEX cached_results_by_expiry ON cached_results (expires_ms);
