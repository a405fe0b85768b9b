-- +goose Up
-- What has happened to each device, and why: kept for 30 days, also when the
-- device is deleted. At most 100 of a device.
CREATE TABLE device_events (
  id            INTEGER PRIMARY KEY,
  tenant_id     INTEGER NOT NULL,
  device_id     INTEGER NOT NULL,
  at            INTEGER NOT NULL,
  event         INTEGER NOT NULL,       -- 1 registered 2 rebound 3 address changed 4 suspected 5 retired 6 restored 7 deleted
  user_id       INTEGER,                -- registered, rebound: whose it is from then on; NULL: not said, or erased
  reason        TEXT NOT NULL,
  credential_id INTEGER NOT NULL,       -- whose verdict it was, with its version; 0: nobody's
  version       INTEGER NOT NULL,
  actor         TEXT NOT NULL           -- engine, key_..., usk_... or job_...
) STRICT;
CREATE INDEX device_events_device ON device_events (tenant_id, device_id, id);
CREATE INDEX device_events_user ON device_events (tenant_id, user_id) WHERE user_id IS NOT NULL;
