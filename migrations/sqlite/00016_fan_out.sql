-- +goose Up
-- How far a notification has come that leads to more targets than are stored at once.
ALTER TABLE fanouts ADD COLUMN stage INTEGER NOT NULL DEFAULT 0;      -- 0 not begun 1 its users 2 named devices and endpoints 3 subscribers
ALTER TABLE fanouts ADD COLUMN users_left INTEGER NOT NULL DEFAULT 0; -- so many of the last users are left
ALTER TABLE fanouts ADD COLUMN after_id INTEGER NOT NULL DEFAULT 0;   -- targets up to this one are done, of the first user left or of the subscribers
ALTER TABLE fanouts ADD COLUMN moved_at INTEGER NOT NULL DEFAULT 0;   -- when it last came further

-- Tenants take turns.
CREATE INDEX fanouts_tenant ON fanouts (tenant_id, due_at);
