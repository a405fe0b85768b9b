-- +goose Up
-- Only in builds with the tag nextschema: the schema of a version to come, as far
-- as this one has to live with it. A column, a table and an index more.
ALTER TABLE deliveries ADD COLUMN next_column BIGINT NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN next_column TEXT NOT NULL DEFAULT '';
CREATE TABLE next_table (id BIGINT PRIMARY KEY);
CREATE INDEX next_index ON notifications (tenant_id, created_at);
