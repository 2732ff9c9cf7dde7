-- Jobs whose results other jobs take, while those have not ended.
CREATE TABLE job_inputs (
  -- The job that takes.
  num INTEGER NOT NULL,
  -- The job whose result it takes.
  of_id TEXT NOT NULL,
  -- Its blob, which this row refers to; NULL while that job has not ended.
  key TEXT,
  PRIMARY KEY (num, of_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_inputs_waiting ON job_inputs (of_id) WHERE key IS NULL;
CREATE INDEX job_inputs_by_key ON job_inputs (key) WHERE key IS NOT NULL;
