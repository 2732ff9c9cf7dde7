-- What the engine had to say of a kept result: it goes for every job that takes it. A list of texts in JSON.
ALTER TABLE cached_results ADD COLUMN warnings TEXT NOT NULL DEFAULT '[]';
