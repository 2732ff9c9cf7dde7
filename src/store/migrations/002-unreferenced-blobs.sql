-- From here on jobs.result_key is the blob that a job refers to: its result's, or the one that its run is about to store.

-- Blobs that have lost their last reference, until they are deleted. A key is here or in jobs.result_key, never in both.
CREATE TABLE unreferenced_blobs (
  key TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
