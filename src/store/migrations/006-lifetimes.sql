-- When what has ended goes, so that whoever sweeps looks at what is due and at nothing else.

-- Ended jobs in the order of their ends; those from before this table by their submission, which is not later.
CREATE TABLE ended_jobs (
  ended_ms INTEGER NOT NULL,
  num INTEGER NOT NULL,
  PRIMARY KEY (ended_ms, num)
) STRICT, WITHOUT ROWID;
INSERT INTO ended_jobs (ended_ms, num) SELECT created_ms, num FROM jobs WHERE status IN (3, 4, 5, 6);

-- Results that have a time to go, until they are purged.
CREATE TABLE expiring_results (
  expires_ms INTEGER NOT NULL,
  num INTEGER NOT NULL,
  PRIMARY KEY (expires_ms, num)
) STRICT, WITHOUT ROWID;
