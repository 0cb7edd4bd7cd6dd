-- A row that is guarded by tokens: it keeps the highest token that wrote to it. One statement looks and writes, so that
-- nobody comes in between; it changes one row, or none where the token is stale.
CREATE TABLE IF NOT EXISTS report (id INTEGER PRIMARY KEY, text TEXT NOT NULL, token INTEGER NOT NULL);
INSERT OR IGNORE INTO report (id, text, token) VALUES (1, '', 0);
-- The statement of every writer:
--   UPDATE report SET text = :text, token = :token WHERE id = 1 AND token <= :token;
