-- +goose Up
-- The same tables as for SQLite, with equal numbers; only the types differ.
-- Times are unix milliseconds, ids are 63-bit integers made by the node (package ids).
-- Times that may be absent are 0. Codes (state, reason, outcome ...) are pinned by tests in Go.

CREATE TABLE schema_info (
  only_row   SMALLINT PRIMARY KEY CHECK (only_row = 1),
  min_reader BIGINT NOT NULL           -- the oldest schema version whose binary may run on this database
);
INSERT INTO schema_info (only_row, min_reader) VALUES (1, 1);

CREATE TABLE tenants (
  id         BIGINT PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,      -- the id that callers use
  title      TEXT NOT NULL,
  settings   TEXT NOT NULL,             -- JSON
  keyset     BYTEA NOT NULL,             -- the tenant's sealing keys, sealed with the master key ring
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);

CREATE TABLE api_keys (
  id           BIGINT PRIMARY KEY,
  tenant_id    BIGINT NOT NULL,        -- 0: operator key
  name         TEXT NOT NULL,
  scopes       TEXT NOT NULL,           -- separated by blanks
  hash         BYTEA NOT NULL,           -- SHA-256 of the secret
  created_at   BIGINT NOT NULL,
  expires_at   BIGINT NOT NULL,
  revoked_at   BIGINT NOT NULL,
  last_used_at BIGINT NOT NULL
);
CREATE INDEX api_keys_tenant ON api_keys (tenant_id, id);

CREATE TABLE user_keys (
  id         BIGINT PRIMARY KEY,
  tenant_id  BIGINT NOT NULL,
  name       TEXT NOT NULL,
  sealed     BYTEA NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE INDEX user_keys_tenant ON user_keys (tenant_id, id);

CREATE TABLE apps (
  tenant_id  BIGINT NOT NULL,
  name       TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, name)
);

CREATE TABLE credentials (
  id         BIGINT PRIMARY KEY,
  tenant_id  BIGINT NOT NULL,
  app        TEXT NOT NULL,
  channel    SMALLINT NOT NULL,
  qualifier  TEXT NOT NULL,
  version    BIGINT NOT NULL,          -- the newest one, in credential_versions
  status     TEXT NOT NULL,
  reason     TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  UNIQUE (tenant_id, app, channel, qualifier)
);

CREATE TABLE credential_versions (
  credential_id BIGINT NOT NULL,
  version       BIGINT NOT NULL,
  settings      TEXT NOT NULL,          -- JSON, shown on read
  sealed        BYTEA NOT NULL,
  expires_at    BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  proven_at     BIGINT NOT NULL,       -- first success; until then no answer retires a device at once
  PRIMARY KEY (credential_id, version)
);

CREATE TABLE users (
  tenant_id   BIGINT NOT NULL,
  external_id TEXT NOT NULL,            -- the tenant's own id
  id          BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, external_id)
);
CREATE UNIQUE INDEX users_id ON users (tenant_id, id);

CREATE TABLE devices (
  id              BIGINT PRIMARY KEY,  -- one id space with endpoints: a delivery's target
  tenant_id       BIGINT NOT NULL,
  user_id         BIGINT NOT NULL,
  epoch           BIGINT NOT NULL,     -- +1 on every change of user
  app             TEXT NOT NULL,
  channel         SMALLINT NOT NULL,
  kind            TEXT NOT NULL,
  address         TEXT NOT NULL,
  address_hash    BYTEA NOT NULL,        -- SHA-256 of the address
  environment     TEXT NOT NULL,        -- APNs: production, sandbox, auto
  keys            BYTEA NOT NULL,        -- web push: p256dh (65 octets) and auth (16)
  vapid_key       TEXT NOT NULL,        -- web push: the public key that the subscription is bound to, '' where unknown
  installation_id TEXT NOT NULL,
  os              TEXT NOT NULL,
  app_version     TEXT NOT NULL,
  locale          TEXT NOT NULL,
  time_zone       TEXT NOT NULL,
  tags            TEXT NOT NULL,        -- JSON object
  registered_at   BIGINT NOT NULL,
  last_seen_at    BIGINT NOT NULL,
  expires_at      BIGINT NOT NULL,
  status          SMALLINT NOT NULL,     -- 1 active, 2 suspect, 3 retired
  reason          TEXT NOT NULL,
  status_at       BIGINT NOT NULL,
  credential_id   BIGINT NOT NULL,     -- whose answer made it suspect or retired it, with its version
  version         BIGINT NOT NULL,
  created_at      BIGINT NOT NULL,
  updated_at      BIGINT NOT NULL
);
CREATE UNIQUE INDEX devices_address ON devices (tenant_id, channel, app, address_hash);
CREATE INDEX devices_user ON devices (tenant_id, user_id);
CREATE INDEX devices_tenant ON devices (tenant_id, id);
CREATE INDEX devices_installation ON devices (tenant_id, app, installation_id, channel) WHERE installation_id <> '';
CREATE INDEX devices_doubt ON devices (credential_id, version) WHERE status > 1;

CREATE TABLE endpoints (
  id          BIGINT PRIMARY KEY,      -- one id space with devices
  tenant_id   BIGINT NOT NULL,
  user_id     BIGINT NOT NULL,         -- 0: not bound to a user
  url         TEXT NOT NULL,
  description TEXT NOT NULL,
  event_types TEXT NOT NULL,            -- JSON array
  status      TEXT NOT NULL,
  reason      TEXT NOT NULL,
  sealed      BYTEA NOT NULL,            -- its signing secrets
  created_at  BIGINT NOT NULL,
  updated_at  BIGINT NOT NULL
);
CREATE INDEX endpoints_tenant ON endpoints (tenant_id, id);
CREATE INDEX endpoints_user ON endpoints (tenant_id, user_id) WHERE user_id <> 0;

CREATE TABLE notifications (
  tenant_id  BIGINT NOT NULL,
  id         BIGINT NOT NULL,
  lane       SMALLINT NOT NULL,
  type       TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  send_at    BIGINT NOT NULL,          -- 0: at once
  flags      SMALLINT NOT NULL,          -- 1 sensitive, 2 at most once, 4 canceled, 8 scheduled
  targets    BIGINT NOT NULL,          -- deliveries made at accept
  PRIMARY KEY (tenant_id, id)
);

CREATE TABLE payloads (                 -- the request as accepted, sealed; gone before the rows that it belongs to
  notification_id BIGINT PRIMARY KEY,
  tenant_id       BIGINT NOT NULL,
  sensitive       SMALLINT NOT NULL,     -- 1: erased as soon as nothing waits for it
  body            BYTEA NOT NULL
);
CREATE INDEX payloads_sensitive ON payloads (notification_id) WHERE sensitive <> 0;

CREATE TABLE deliveries (
  tenant_id       BIGINT NOT NULL,
  notification_id BIGINT NOT NULL,
  target_id       BIGINT NOT NULL,     -- device or endpoint
  channel         SMALLINT NOT NULL,
  lane            SMALLINT NOT NULL,
  state           SMALLINT NOT NULL,     -- 1 pending 2 sending 3 held | 4 sent 5 dropped 6 dead
  reason          SMALLINT NOT NULL,
  user_id         BIGINT,              -- NULL: not for a user
  device_epoch    INTEGER NOT NULL,     -- the device's when accepted; 0 for endpoints
  credential_id   BIGINT NOT NULL,     -- of the newest attempt, 0: none yet or none needed
  due_at          BIGINT NOT NULL,     -- pending: when; sending: end of the lease; held: the deadline
  expires_at      BIGINT NOT NULL,
  claim           BIGINT NOT NULL,     -- fences every write of the node that holds the lease
  hold_id         BIGINT NOT NULL,
  order_key       BIGINT,              -- reserved for ordered delivery
  round           SMALLINT NOT NULL,     -- +1 with every replay
  spent           SMALLINT NOT NULL,     -- attempts of this round that count
  attempts        INTEGER NOT NULL,     -- attempts of all rounds
  takeovers       SMALLINT NOT NULL,
  flags           SMALLINT NOT NULL,     -- 1 unknown: may have been sent by a node that died
  renewed         SMALLINT NOT NULL,     -- what the newest attempt asked to renew
  updated_at      BIGINT NOT NULL,
  -- the newest attempt; those before it are in attempts
  att_at          BIGINT NOT NULL,
  att_ms          INTEGER NOT NULL,
  att_outcome     SMALLINT NOT NULL,
  att_status      SMALLINT NOT NULL,
  att_ambiguous   SMALLINT NOT NULL,
  att_code        TEXT NOT NULL,
  att_detail      TEXT NOT NULL,
  att_provider_id TEXT NOT NULL,
  PRIMARY KEY (tenant_id, notification_id, target_id)
);
-- The only queue index: it holds nothing but unfinished rows, whatever the history weighs.
CREATE INDEX deliveries_due ON deliveries (lane, tenant_id, due_at) WHERE state < 4;
-- Rows change state several times and are then still for weeks: dead versions are
-- removed early, so that the queue index stays small.
ALTER TABLE deliveries SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05,
  autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX deliveries_dead ON deliveries (tenant_id, updated_at) WHERE state = 6;
CREATE INDEX deliveries_hold ON deliveries (hold_id) WHERE hold_id <> 0;
CREATE INDEX deliveries_user ON deliveries (tenant_id, user_id, notification_id) WHERE user_id IS NOT NULL;

CREATE TABLE attempts (                 -- those before the newest: a first-try success has no row here
  tenant_id       BIGINT NOT NULL,
  notification_id BIGINT NOT NULL,
  target_id       BIGINT NOT NULL,
  number          BIGINT NOT NULL,
  at              BIGINT NOT NULL,
  ms              BIGINT NOT NULL,
  outcome         SMALLINT NOT NULL,
  status          SMALLINT NOT NULL,
  ambiguous       SMALLINT NOT NULL,
  code            TEXT NOT NULL,
  detail          TEXT NOT NULL,
  provider_id     TEXT NOT NULL,
  PRIMARY KEY (tenant_id, notification_id, target_id, number)
);

CREATE TABLE holds (
  id         BIGINT PRIMARY KEY,
  tenant_id  BIGINT NOT NULL,
  scope      SMALLINT NOT NULL,          -- 1 credential 2 endpoint 3 missing credential 4 doubt
  subject_id BIGINT NOT NULL,
  version    BIGINT NOT NULL,
  app        TEXT NOT NULL,
  channel    SMALLINT NOT NULL,
  qualifier  TEXT NOT NULL,
  reason     SMALLINT NOT NULL,
  detail     TEXT NOT NULL,
  since      BIGINT NOT NULL,
  ending     SMALLINT NOT NULL           -- 0 stands, 1 resume, 2 confirm, 3 reverse: its deliveries are being moved out
);
CREATE UNIQUE INDEX holds_one ON holds (tenant_id, scope, subject_id, version, app, channel, qualifier) WHERE ending = 0;

CREATE INDEX holds_tenant ON holds (tenant_id);

CREATE TABLE skips (
  tenant_id       BIGINT NOT NULL,
  notification_id BIGINT NOT NULL,
  n               BIGINT NOT NULL,
  user_id         BIGINT,              -- NULL: a target was named
  target_id       BIGINT NOT NULL,
  channel         SMALLINT NOT NULL,
  reason          SMALLINT NOT NULL,
  PRIMARY KEY (tenant_id, notification_id, n)
);
CREATE INDEX skips_user ON skips (tenant_id, user_id, notification_id) WHERE user_id IS NOT NULL;

CREATE TABLE fanouts (                  -- the targets are still to be resolved, when due
  tenant_id       BIGINT NOT NULL,
  notification_id BIGINT NOT NULL,
  due_at          BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, notification_id)
);
CREATE INDEX fanouts_due ON fanouts (due_at);

CREATE TABLE nodes (
  id         SMALLINT PRIMARY KEY,       -- node number, 0 to 1023
  name       TEXT NOT NULL,
  started_at BIGINT NOT NULL,
  beat_at    BIGINT NOT NULL
);

CREATE TABLE idempotency (
  tenant_id    BIGINT NOT NULL,
  principal_id BIGINT NOT NULL,
  route        TEXT NOT NULL,
  key          TEXT NOT NULL,
  body_hash    BYTEA NOT NULL,
  status       SMALLINT NOT NULL,
  answer       BYTEA NOT NULL,
  expires_at   BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, principal_id, route, key)
);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

CREATE TABLE audit (
  id        BIGINT PRIMARY KEY,
  tenant_id BIGINT NOT NULL,           -- 0: the installation
  at        BIGINT NOT NULL,
  actor     TEXT NOT NULL,
  action    TEXT NOT NULL,
  subject   TEXT NOT NULL
);
CREATE INDEX audit_tenant ON audit (tenant_id, id);
