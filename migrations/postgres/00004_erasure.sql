-- +goose Up
-- Erasure of users, deletion of tenants, retention per tenant.
ALTER TABLE tenants ADD COLUMN deleted_at BIGINT NOT NULL DEFAULT 0; -- since when it is being deleted
CREATE INDEX tenants_deleting ON tenants (id) WHERE deleted_at <> 0;

-- Content by tenant: each has its own retention.
CREATE INDEX payloads_tenant ON payloads (tenant_id, notification_id);

CREATE TABLE erasures (                 -- receipts: none of them names the user in clear
  id           BIGINT PRIMARY KEY,
  tenant_id    BIGINT NOT NULL,
  subject      BYTEA NOT NULL,          -- keyed hash of the tenant's own id of the user
  user_id      BIGINT NOT NULL,         -- the internal id, which nothing else holds in the end; 0: the user was not known
  sealed       BYTEA NOT NULL,          -- while it is under way: what to look for, sealed; empty when it is done
  job_id       BIGINT NOT NULL,         -- the job that does it
  actor        TEXT NOT NULL,
  origin       SMALLINT NOT NULL,       -- 1 asked for, 2 applied again from the log, after a restore
  requested_at BIGINT NOT NULL,
  finished_at  BIGINT NOT NULL,
  counts       TEXT NOT NULL            -- JSON: table -> rows removed or changed
);
CREATE INDEX erasures_tenant ON erasures (tenant_id, id);
