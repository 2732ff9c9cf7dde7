-- What tells of no job's end, and was not asked for again: a tenant has so many of them at the most.
ALTER TABLE webhooks ADD COLUMN news INTEGER NOT NULL DEFAULT 0;
CREATE INDEX webhooks_news ON webhooks (tenant, seq) WHERE news = 1 AND dead = 0;

-- How many there are, so that a step need not count them.
CREATE TABLE webhook_news (
  tenant TEXT PRIMARY KEY,
  waiting INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER webhook_news_added AFTER INSERT ON webhooks WHEN NEW.news = 1 AND NEW.dead = 0 BEGIN
  INSERT INTO webhook_news (tenant, waiting) VALUES (NEW.tenant, 1) ON CONFLICT (tenant) DO UPDATE SET waiting = waiting + 1;
END;
CREATE TRIGGER webhook_news_gone AFTER DELETE ON webhooks WHEN OLD.news = 1 AND OLD.dead = 0 BEGIN
  UPDATE webhook_news SET waiting = waiting - 1 WHERE tenant = OLD.tenant;
END;
CREATE TRIGGER webhook_news_dead AFTER UPDATE OF dead ON webhooks WHEN OLD.news = 1 AND OLD.dead = 0 AND NEW.dead = 1 BEGIN
  UPDATE webhook_news SET waiting = waiting - 1 WHERE tenant = OLD.tenant;
END;
