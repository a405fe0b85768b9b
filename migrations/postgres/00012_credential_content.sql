-- +goose Up
-- Which versions of a credential are the same: going back leads to another one.
ALTER TABLE credential_versions ADD COLUMN same_as INTEGER NOT NULL DEFAULT 0; -- the version whose content a rollback took; 0: it was put
