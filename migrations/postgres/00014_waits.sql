-- +goose Up
-- Scopes that are in trouble: a row from the first sign of it until the first success
-- after it. What waits for one stays pending.
CREATE TABLE waits (
  tenant_id  BIGINT NOT NULL,
  subject_id BIGINT NOT NULL,           -- a credential or an endpoint
  origin     TEXT NOT NULL,             -- of a push service; '': all of it
  id         BIGINT NOT NULL,
  channel    SMALLINT NOT NULL,
  cause      SMALLINT NOT NULL,         -- 1 throttled 2 unreachable 3 failing
  detail     TEXT NOT NULL,             -- what the provider said
  since      BIGINT NOT NULL,
  until      BIGINT NOT NULL,           -- nothing is sent before, but for a look; 0: each delivery keeps its own schedule
  noted_at   BIGINT NOT NULL,           -- the newest failure
  success_at BIGINT NOT NULL,           -- the last success before, as far as it is known
  PRIMARY KEY (tenant_id, subject_id, origin)
);

-- What a delivery has waited for, as JSON: '' for most.
ALTER TABLE deliveries ADD COLUMN waited TEXT NOT NULL DEFAULT '';

-- What the provider said, for whoever is to blame.
ALTER TABLE shared_refusals ADD COLUMN detail TEXT NOT NULL DEFAULT '';
