-- +goose Up
-- What nodes tell each other of refusals. On SQLite a server is alone and writes
-- nothing of it; the tables are here because the schemas are equal.
CREATE TABLE shared_refusals (          -- targets that were refused lately
  credential_id BIGINT NOT NULL,
  version       INTEGER NOT NULL,
  origin        TEXT NOT NULL,          -- of a push service; '': the provider has one
  target_id     BIGINT NOT NULL,
  tenant        BIGINT NOT NULL,
  user_id       BIGINT NOT NULL,
  worked        SMALLINT NOT NULL,       -- 1: something was sent to it before
  at            BIGINT NOT NULL,       -- the newest
  noted_at      BIGINT NOT NULL,
  PRIMARY KEY (credential_id, version, origin, target_id)
);
CREATE INDEX shared_refusals_noted ON shared_refusals (noted_at);

CREATE TABLE shared_successes (         -- what has succeeded since somebody was refused
  credential_id BIGINT NOT NULL,
  version       INTEGER NOT NULL,
  origin        TEXT NOT NULL,
  began         BIGINT NOT NULL,       -- the newest
  noted_at      BIGINT NOT NULL,
  PRIMARY KEY (credential_id, version, origin)
);
CREATE INDEX shared_successes_noted ON shared_successes (noted_at);
