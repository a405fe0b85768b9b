-- +goose Up
-- Times are unix milliseconds, ids are 63-bit integers made by the node (package ids).
-- Times that may be absent are 0. Codes (state, reason, outcome ...) are pinned by tests in Go.

CREATE TABLE schema_info (
  only_row   INTEGER PRIMARY KEY CHECK (only_row = 1),
  min_reader INTEGER NOT NULL           -- the oldest schema version whose binary may run on this database
) STRICT;
INSERT INTO schema_info (only_row, min_reader) VALUES (1, 1);

CREATE TABLE tenants (
  id         INTEGER PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,      -- the id that callers use
  title      TEXT NOT NULL,
  settings   TEXT NOT NULL,             -- JSON
  keyset     BLOB NOT NULL,             -- the tenant's sealing keys, sealed with the master key ring
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE api_keys (
  id           INTEGER PRIMARY KEY,
  tenant_id    INTEGER NOT NULL,        -- 0: operator key
  name         TEXT NOT NULL,
  scopes       TEXT NOT NULL,           -- separated by blanks
  hash         BLOB NOT NULL,           -- SHA-256 of the secret
  created_at   INTEGER NOT NULL,
  expires_at   INTEGER NOT NULL,
  revoked_at   INTEGER NOT NULL,
  last_used_at INTEGER NOT NULL
) STRICT;
CREATE INDEX api_keys_tenant ON api_keys (tenant_id, id);

CREATE TABLE user_keys (
  id         INTEGER PRIMARY KEY,
  tenant_id  INTEGER NOT NULL,
  name       TEXT NOT NULL,
  sealed     BLOB NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX user_keys_tenant ON user_keys (tenant_id, id);

CREATE TABLE apps (
  tenant_id  INTEGER NOT NULL,
  name       TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE credentials (
  id         INTEGER PRIMARY KEY,
  tenant_id  INTEGER NOT NULL,
  app        TEXT NOT NULL,
  channel    INTEGER NOT NULL,
  qualifier  TEXT NOT NULL,
  version    INTEGER NOT NULL,          -- the newest one, in credential_versions
  status     TEXT NOT NULL,
  reason     TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  UNIQUE (tenant_id, app, channel, qualifier)
) STRICT;

CREATE TABLE credential_versions (
  credential_id INTEGER NOT NULL,
  version       INTEGER NOT NULL,
  settings      TEXT NOT NULL,          -- JSON, shown on read
  sealed        BLOB NOT NULL,
  expires_at    INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  proven_at     INTEGER NOT NULL,       -- first success; until then no answer retires a device at once
  PRIMARY KEY (credential_id, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
  tenant_id   INTEGER NOT NULL,
  external_id TEXT NOT NULL,            -- the tenant's own id
  id          INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, external_id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX users_id ON users (tenant_id, id);

CREATE TABLE devices (
  id              INTEGER PRIMARY KEY,  -- one id space with endpoints: a delivery's target
  tenant_id       INTEGER NOT NULL,
  user_id         INTEGER NOT NULL,
  epoch           INTEGER NOT NULL,     -- +1 on every change of user
  app             TEXT NOT NULL,
  channel         INTEGER NOT NULL,
  kind            TEXT NOT NULL,
  address         TEXT NOT NULL,
  address_hash    BLOB NOT NULL,        -- SHA-256 of the address
  environment     TEXT NOT NULL,        -- APNs: production, sandbox, auto
  keys            BLOB NOT NULL,        -- web push: p256dh (65 octets) and auth (16)
  vapid_key       TEXT NOT NULL,        -- web push: the public key that the subscription is bound to, '' where unknown
  installation_id TEXT NOT NULL,
  os              TEXT NOT NULL,
  app_version     TEXT NOT NULL,
  locale          TEXT NOT NULL,
  time_zone       TEXT NOT NULL,
  tags            TEXT NOT NULL,        -- JSON object
  registered_at   INTEGER NOT NULL,
  last_seen_at    INTEGER NOT NULL,
  expires_at      INTEGER NOT NULL,
  status          INTEGER NOT NULL,     -- 1 active, 2 suspect, 3 retired
  reason          TEXT NOT NULL,
  status_at       INTEGER NOT NULL,
  credential_id   INTEGER NOT NULL,     -- whose answer made it suspect or retired it, with its version
  version         INTEGER NOT NULL,
  created_at      INTEGER NOT NULL,
  updated_at      INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX devices_address ON devices (tenant_id, channel, app, address_hash);
CREATE INDEX devices_user ON devices (tenant_id, user_id);
CREATE INDEX devices_tenant ON devices (tenant_id, id);
CREATE INDEX devices_installation ON devices (tenant_id, app, installation_id, channel) WHERE installation_id <> '';
CREATE INDEX devices_doubt ON devices (credential_id, version) WHERE status > 1;

CREATE TABLE endpoints (
  id          INTEGER PRIMARY KEY,      -- one id space with devices
  tenant_id   INTEGER NOT NULL,
  user_id     INTEGER NOT NULL,         -- 0: not bound to a user
  url         TEXT NOT NULL,
  description TEXT NOT NULL,
  event_types TEXT NOT NULL,            -- JSON array
  status      TEXT NOT NULL,
  reason      TEXT NOT NULL,
  sealed      BLOB NOT NULL,            -- its signing secrets
  created_at  INTEGER NOT NULL,
  updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX endpoints_tenant ON endpoints (tenant_id, id);
CREATE INDEX endpoints_user ON endpoints (tenant_id, user_id) WHERE user_id <> 0;

CREATE TABLE notifications (
  tenant_id  INTEGER NOT NULL,
  id         INTEGER NOT NULL,
  lane       INTEGER NOT NULL,
  type       TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  send_at    INTEGER NOT NULL,          -- 0: at once
  flags      INTEGER NOT NULL,          -- 1 sensitive, 2 at most once, 4 canceled, 8 scheduled
  targets    INTEGER NOT NULL,          -- deliveries made at accept
  PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE payloads (                 -- the request as accepted, sealed; gone before the rows that it belongs to
  notification_id INTEGER PRIMARY KEY,
  tenant_id       INTEGER NOT NULL,
  sensitive       INTEGER NOT NULL,     -- 1: erased as soon as nothing waits for it
  body            BLOB NOT NULL
) STRICT;
CREATE INDEX payloads_sensitive ON payloads (notification_id) WHERE sensitive <> 0;

CREATE TABLE deliveries (
  tenant_id       INTEGER NOT NULL,
  notification_id INTEGER NOT NULL,
  target_id       INTEGER NOT NULL,     -- device or endpoint
  channel         INTEGER NOT NULL,
  lane            INTEGER NOT NULL,
  state           INTEGER NOT NULL,     -- 1 pending 2 sending 3 held | 4 sent 5 dropped 6 dead
  reason          INTEGER NOT NULL,
  user_id         INTEGER,              -- NULL: not for a user
  device_epoch    INTEGER NOT NULL,     -- the device's when accepted; 0 for endpoints
  credential_id   INTEGER NOT NULL,     -- of the newest attempt, 0: none yet or none needed
  due_at          INTEGER NOT NULL,     -- pending: when; sending: end of the lease; held: the deadline
  expires_at      INTEGER NOT NULL,
  claim           INTEGER NOT NULL,     -- fences every write of the node that holds the lease
  hold_id         INTEGER NOT NULL,
  order_key       INTEGER,              -- reserved for ordered delivery
  round           INTEGER NOT NULL,     -- +1 with every replay
  spent           INTEGER NOT NULL,     -- attempts of this round that count
  attempts        INTEGER NOT NULL,     -- attempts of all rounds
  takeovers       INTEGER NOT NULL,
  flags           INTEGER NOT NULL,     -- 1 unknown: may have been sent by a node that died
  renewed         INTEGER NOT NULL,     -- what the newest attempt asked to renew
  updated_at      INTEGER NOT NULL,
  -- the newest attempt; those before it are in attempts
  att_at          INTEGER NOT NULL,
  att_ms          INTEGER NOT NULL,
  att_outcome     INTEGER NOT NULL,
  att_status      INTEGER NOT NULL,
  att_ambiguous   INTEGER NOT NULL,
  att_code        TEXT NOT NULL,
  att_detail      TEXT NOT NULL,
  att_provider_id TEXT NOT NULL,
  PRIMARY KEY (tenant_id, notification_id, target_id)
) STRICT, WITHOUT ROWID;
-- The only queue index: it holds nothing but unfinished rows, whatever the history weighs.
CREATE INDEX deliveries_due ON deliveries (lane, tenant_id, due_at) WHERE state < 4;
CREATE INDEX deliveries_dead ON deliveries (tenant_id, updated_at) WHERE state = 6;
CREATE INDEX deliveries_hold ON deliveries (hold_id) WHERE hold_id <> 0;
CREATE INDEX deliveries_user ON deliveries (tenant_id, user_id, notification_id) WHERE user_id IS NOT NULL;

CREATE TABLE attempts (                 -- those before the newest: a first-try success has no row here
  tenant_id       INTEGER NOT NULL,
  notification_id INTEGER NOT NULL,
  target_id       INTEGER NOT NULL,
  number          INTEGER NOT NULL,
  at              INTEGER NOT NULL,
  ms              INTEGER NOT NULL,
  outcome         INTEGER NOT NULL,
  status          INTEGER NOT NULL,
  ambiguous       INTEGER NOT NULL,
  code            TEXT NOT NULL,
  detail          TEXT NOT NULL,
  provider_id     TEXT NOT NULL,
  PRIMARY KEY (tenant_id, notification_id, target_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE holds (
  id         INTEGER PRIMARY KEY,
  tenant_id  INTEGER NOT NULL,
  scope      INTEGER NOT NULL,          -- 1 credential 2 endpoint 3 missing credential 4 doubt
  subject_id INTEGER NOT NULL,
  version    INTEGER NOT NULL,
  app        TEXT NOT NULL,
  channel    INTEGER NOT NULL,
  qualifier  TEXT NOT NULL,
  reason     INTEGER NOT NULL,
  detail     TEXT NOT NULL,
  since      INTEGER NOT NULL,
  ending     INTEGER NOT NULL           -- 0 stands, 1 resume, 2 confirm, 3 reverse: its deliveries are being moved out
) STRICT;
CREATE UNIQUE INDEX holds_one ON holds (tenant_id, scope, subject_id, version, app, channel, qualifier) WHERE ending = 0;

CREATE INDEX holds_tenant ON holds (tenant_id);

CREATE TABLE skips (
  tenant_id       INTEGER NOT NULL,
  notification_id INTEGER NOT NULL,
  n               INTEGER NOT NULL,
  user_id         INTEGER,              -- NULL: a target was named
  target_id       INTEGER NOT NULL,
  channel         INTEGER NOT NULL,
  reason          INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, notification_id, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX skips_user ON skips (tenant_id, user_id, notification_id) WHERE user_id IS NOT NULL;

CREATE TABLE fanouts (                  -- the targets are still to be resolved, when due
  tenant_id       INTEGER NOT NULL,
  notification_id INTEGER NOT NULL,
  due_at          INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, notification_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX fanouts_due ON fanouts (due_at);

CREATE TABLE nodes (
  id         INTEGER PRIMARY KEY,       -- node number, 0 to 1023
  name       TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  beat_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE idempotency (
  tenant_id    INTEGER NOT NULL,
  principal_id INTEGER NOT NULL,
  route        TEXT NOT NULL,
  key          TEXT NOT NULL,
  body_hash    BLOB NOT NULL,
  status       INTEGER NOT NULL,
  answer       BLOB NOT NULL,
  expires_at   INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, principal_id, route, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

CREATE TABLE audit (
  id        INTEGER PRIMARY KEY,
  tenant_id INTEGER NOT NULL,           -- 0: the installation
  at        INTEGER NOT NULL,
  actor     TEXT NOT NULL,
  action    TEXT NOT NULL,
  subject   TEXT NOT NULL
) STRICT;
CREATE INDEX audit_tenant ON audit (tenant_id, id);
