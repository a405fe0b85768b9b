-- +goose Up
-- What nodes tell each other as long as they live. On SQLite a server is alone and
-- writes nothing of it; the tables are here because the schemas are equal.
CREATE TABLE shared_gates (             -- scopes that have to wait
  subject  INTEGER NOT NULL,            -- a credential or an endpoint
  origin   TEXT NOT NULL,               -- of a push service; '': all of it
  until    INTEGER NOT NULL,
  wait     INTEGER NOT NULL,            -- for how long it was closed, ms
  noted_at INTEGER NOT NULL,
  PRIMARY KEY (subject, origin)
) STRICT, WITHOUT ROWID;
CREATE INDEX shared_gates_noted ON shared_gates (noted_at);

CREATE TABLE shared_verdicts (          -- the last verdicts of a credential version on a node
  credential_id INTEGER NOT NULL,
  version       INTEGER NOT NULL,
  life          INTEGER NOT NULL,       -- nodes.token
  seen          INTEGER NOT NULL,
  gone          INTEGER NOT NULL,
  since         INTEGER NOT NULL,       -- the oldest of them
  newest        INTEGER NOT NULL,
  PRIMARY KEY (credential_id, version, life)
) STRICT, WITHOUT ROWID;

CREATE TABLE shared_uses (              -- what a node uses of a limit
  kind       INTEGER NOT NULL,          -- 1 urgent notifications, 2 requests
  subject    INTEGER NOT NULL,          -- the tenant, or the operator's key
  life       INTEGER NOT NULL,          -- nodes.token
  per_second REAL NOT NULL,
  noted_at   INTEGER NOT NULL,
  PRIMARY KEY (kind, subject, life)
) STRICT, WITHOUT ROWID;
