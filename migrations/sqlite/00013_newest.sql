-- +goose Up
-- The newest of the deliveries of a device that have one collapse key: those before
-- it are superseded. deliveries.order_key, which was reserved until now, says which
-- key that is: a hash with a key of the tenant's. It is NULL for webhooks, for what
-- has no collapse key, and for all that was accepted before, which supersedes nothing.
CREATE TABLE newest (
  tenant_id       INTEGER NOT NULL,
  target_id       INTEGER NOT NULL,
  order_key       INTEGER NOT NULL,
  notification_id INTEGER NOT NULL,     -- by the order of commits
  previous_id     INTEGER NOT NULL,     -- the one before it; 0: none
  moved_at        INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, target_id, order_key)
) STRICT, WITHOUT ROWID;
ALTER TABLE deliveries ADD COLUMN replaces INTEGER;      -- the notification that was the newest before; NULL: none
ALTER TABLE deliveries ADD COLUMN superseded_by INTEGER; -- the newer notification for which it was dropped
