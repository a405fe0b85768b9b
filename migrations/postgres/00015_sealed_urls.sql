-- +goose Up
-- Where an endpoint is reached, sealed with the tenant's keys; url is '' then. NULL: it is
-- in url. URLs are written sealed once min_reader is 15: nobody who cannot read them may
-- run on this database any more. A new installation begins so; an older one gets there
-- with `carillon key-ring reseal`.
ALTER TABLE endpoints ADD COLUMN url_sealed BYTEA;
UPDATE schema_info SET min_reader=15 WHERE min_reader<15 AND NOT EXISTS (SELECT 1 FROM tenants);
