-- +goose Up
-- What an APNs token is for: an app has several, of the same installation. All
-- others are 1, as what is registered by a version that knows of no purposes.
ALTER TABLE devices ADD COLUMN purpose SMALLINT NOT NULL DEFAULT 1;    -- 1 alert 2 voip 3 push_to_start 4 activity 5 widget
ALTER TABLE devices ADD COLUMN activity_id TEXT NOT NULL DEFAULT '';   -- of an activity: the app's own id of the Live Activity
-- One of each in an installation.
DROP INDEX devices_installation;
CREATE INDEX devices_installation ON devices (tenant_id, app, installation_id, channel, purpose, activity_id) WHERE installation_id <> '';
-- Which have ended and go.
CREATE INDEX devices_activities ON devices (expires_at) WHERE purpose = 4;
