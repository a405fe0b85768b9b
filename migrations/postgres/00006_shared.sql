-- +goose Up
-- What nodes tell each other as long as they live. It is written all the time and
-- of no use afterwards, so it need not survive a crash of the database.
CREATE UNLOGGED TABLE shared_gates (    -- scopes that have to wait
  subject  BIGINT NOT NULL,             -- a credential or an endpoint
  origin   TEXT NOT NULL,               -- of a push service; '': all of it
  until    BIGINT NOT NULL,
  wait     BIGINT NOT NULL,             -- for how long it was closed, ms
  noted_at BIGINT NOT NULL,
  PRIMARY KEY (subject, origin)
);
CREATE INDEX shared_gates_noted ON shared_gates (noted_at);

CREATE UNLOGGED TABLE shared_verdicts ( -- the last verdicts of a credential version on a node
  credential_id BIGINT NOT NULL,
  version       BIGINT NOT NULL,
  life          BIGINT NOT NULL,        -- nodes.token
  seen          BIGINT NOT NULL,
  gone          BIGINT NOT NULL,
  since         BIGINT NOT NULL,        -- the oldest of them
  newest        BIGINT NOT NULL,
  PRIMARY KEY (credential_id, version, life)
);

CREATE UNLOGGED TABLE shared_uses (     -- what a node uses of a limit
  kind       SMALLINT NOT NULL,         -- 1 urgent notifications, 2 requests
  subject    BIGINT NOT NULL,           -- the tenant, or the operator's key
  life       BIGINT NOT NULL,           -- nodes.token
  per_second DOUBLE PRECISION NOT NULL,
  noted_at   BIGINT NOT NULL,
  PRIMARY KEY (kind, subject, life)
);
