-- +goose Up
-- The newest of the deliveries of a device that have one collapse key: those before
-- it are superseded. deliveries.order_key, which was reserved until now, says which
-- key that is: a hash with a key of the tenant's. It is NULL for webhooks, for what
-- has no collapse key, and for all that was accepted before, which supersedes nothing.
CREATE TABLE newest (
  tenant_id       BIGINT NOT NULL,
  target_id       BIGINT NOT NULL,
  order_key       BIGINT NOT NULL,
  notification_id BIGINT NOT NULL,     -- by the order of commits
  previous_id     BIGINT NOT NULL,     -- the one before it; 0: none
  moved_at        BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, target_id, order_key)
);
ALTER TABLE deliveries ADD COLUMN replaces BIGINT;      -- the notification that was the newest before; NULL: none
ALTER TABLE deliveries ADD COLUMN superseded_by BIGINT; -- the newer notification for which it was dropped
