-- +goose Up
-- How many browsers are bound to which VAPID key, and which are not known.
CREATE INDEX devices_vapid ON devices (tenant_id, app, vapid_key) WHERE channel = 3 AND status < 3;
