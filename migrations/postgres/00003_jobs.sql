-- +goose Up
-- Background work that outlives a process. A step and what it says of its
-- progress are one transaction.
CREATE TABLE jobs (
  id          BIGINT PRIMARY KEY,
  tenant_id   BIGINT NOT NULL,          -- 0: the installation
  kind        SMALLINT NOT NULL,
  state       SMALLINT NOT NULL,        -- 1 queued 2 running | 3 done 4 canceled 5 failed
  spec        TEXT NOT NULL,            -- JSON: what to do; never changed
  cursor      TEXT NOT NULL,            -- JSON: where the next step goes on, '' before the first
  result      TEXT NOT NULL,            -- JSON: what came of it, '' where there is nothing to tell
  total       BIGINT NOT NULL,          -- items counted ahead, 0: unknown
  done        BIGINT NOT NULL,
  skipped     BIGINT NOT NULL,
  failed      BIGINT NOT NULL,
  error       TEXT NOT NULL,            -- why it failed, or why the newest step has to be tried again
  retries     BIGINT NOT NULL,          -- steps in a row that have failed
  actor       TEXT NOT NULL,
  created_at  BIGINT NOT NULL,
  started_at  BIGINT NOT NULL,
  updated_at  BIGINT NOT NULL,
  finished_at BIGINT NOT NULL,
  lease_until BIGINT NOT NULL,          -- nobody takes a step before: the end of a node's lease, or of a pause
  claim       BIGINT NOT NULL           -- fences the step of the node that holds the lease
);
CREATE INDEX jobs_due ON jobs (lease_until) WHERE state < 3;
CREATE INDEX jobs_tenant ON jobs (tenant_id, id);
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE state > 2;
