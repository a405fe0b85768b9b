-- +goose Up
-- What nodes tell each other of refusals. On SQLite a server is alone and writes
-- nothing of it; the tables are here because the schemas are equal.
CREATE TABLE shared_refusals (          -- targets that were refused lately
  credential_id INTEGER NOT NULL,
  version       INTEGER NOT NULL,
  origin        TEXT NOT NULL,          -- of a push service; '': the provider has one
  target_id     INTEGER NOT NULL,
  tenant        INTEGER NOT NULL,
  user_id       INTEGER NOT NULL,
  worked        INTEGER NOT NULL,       -- 1: something was sent to it before
  at            INTEGER NOT NULL,       -- the newest
  noted_at      INTEGER NOT NULL,
  PRIMARY KEY (credential_id, version, origin, target_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX shared_refusals_noted ON shared_refusals (noted_at);

CREATE TABLE shared_successes (         -- what has succeeded since somebody was refused
  credential_id INTEGER NOT NULL,
  version       INTEGER NOT NULL,
  origin        TEXT NOT NULL,
  began         INTEGER NOT NULL,       -- the newest
  noted_at      INTEGER NOT NULL,
  PRIMARY KEY (credential_id, version, origin)
) STRICT, WITHOUT ROWID;
CREATE INDEX shared_successes_noted ON shared_successes (noted_at);
