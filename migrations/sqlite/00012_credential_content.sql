-- +goose Up
-- Which versions of a credential are the same: going back leads to another one.
ALTER TABLE credential_versions ADD COLUMN same_as INTEGER NOT NULL DEFAULT 0; -- the first version with this content; 0: itself
