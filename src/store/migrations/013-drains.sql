-- What of which node was taken out of service (src/jobs/drains.ts), as JSON. A node of which nothing is out has no row.
CREATE TABLE drains (
  node TEXT PRIMARY KEY,
  drains TEXT NOT NULL
) STRICT, WITHOUT ROWID;
