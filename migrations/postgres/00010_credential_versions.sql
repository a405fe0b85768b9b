-- +goose Up
-- What a provider says of a version of a credential, who put it, and whether it goes
-- back by itself.
ALTER TABLE credential_versions ADD COLUMN actor TEXT NOT NULL DEFAULT '';
ALTER TABLE credential_versions ADD COLUMN auto_rollback SMALLINT NOT NULL DEFAULT 0; -- 1: if it is refused before its first success
ALTER TABLE credential_versions ADD COLUMN checked_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE credential_versions ADD COLUMN checked SMALLINT NOT NULL DEFAULT 0;       -- 0 not, 1 verified, 2 could not be asked, 3 refused, 4 cannot be
ALTER TABLE credential_versions ADD COLUMN check_code TEXT NOT NULL DEFAULT '';
ALTER TABLE credential_versions ADD COLUMN check_detail TEXT NOT NULL DEFAULT '';
