package main

import (
	"slices"
	"strings"
	"time"

	"github.com/carillonhq/carillon/channels/egress"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

// setting is one member of Config: how it is spelled, what it means, and what it
// may be. The reference page and every message come from this table.
type setting struct {
	key    string // in the file; see env and flag for the other spellings
	into   any    // pointer to the member: see parse for the types
	doc    string // for the reference, in Markdown
	check  rule   // what it may be
	common bool   // shown in the help of commands
	secret bool   // never printed, and no flag: command lines can be seen by others
	// redacted, where a part of it may be a secret, is what is printed.
	redacted func() string
}

// env is the environment variable.
func (s setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))
}

// flag is the name of the command line flag, "" if there is none.
func (s setting) flag() string {
	if s.secret {
		return ""
	}
	return strings.NewReplacer(".", "-", "_", "-").Replace(s.key)
}

// names spells the setting in every way, for messages.
func (s setting) names() string {
	if s.secret {
		return s.key + " (" + s.env() + ")"
	}
	return s.key + " (" + s.env() + ", --" + s.flag() + ")"
}

// settings lists the members of c in the order of the reference.
func (c *Config) settings() []setting {
	return slices.Concat(c.serverSettings(), c.limitSettings(), c.channelSettings())
}

func (c *Config) serverSettings() []setting {
	return []setting{
		{key: "listen", common: true, into: &c.Listen, check: address(&c.Listen),
			doc: "Address of the API, as host:port. `:8080` is every address of the machine."},
		{key: "admin.listen", into: &c.AdminListen, check: addressOrOff(&c.AdminListen),
			doc: "Address of `/metrics` and `/debug/pprof`, which need no key: keep it private. `off` switches it off."},
		{key: "database.url", common: true, into: &c.DatabaseURL, check: c.checkDatabase(), redacted: func() string { return db.RedactURL(c.DatabaseURL) },
			doc: "The database: the path of an SQLite file, which is made where it is missing, or `postgres://user:password@host/name`, which any number of servers may share. " +
				"Several hosts, separated by commas, with `?target_session_attrs=read-write` find the primary of a cluster. A password is better kept in `PGPASSWORD` or `PGPASSFILE` than here."},
		{key: "database.connections", into: &c.Connections, check: within(&c.Connections, 8, 1000),
			doc: "How many connections to PostgreSQL this server opens at most, and one more that listens."},
		{key: "migrate", into: &c.Migrate, check: oneOf(&c.Migrate, migrateAuto, migrateCheck, migrateOff),
			doc: "What a server does when it starts: `auto` applies the migrations that are missing, `check` refuses to start without them, `off` starts all the same."},
		{key: "role", into: &c.Role, check: oneOf(&c.Role, delivery.RoleAll, delivery.RoleAPI, delivery.RoleWorker),
			doc: "What this server does: `all`; `api` takes requests and sends nothing; `worker` sends and takes no requests. The last two need PostgreSQL."},
		{key: "key_ring", into: &c.KeyRing, secret: true, check: c.checkKeyRing(),
			doc: "The key ring that seals credentials and content, as `carillon key-ring init` prints it."},
		{key: "key_ring_file", common: true, into: &c.KeyRingFile,
			doc: "A file that holds the key ring, instead of `key_ring`. Back it up apart from the database: neither is worth anything alone."},
		{key: "node.name", into: &c.NodeName, check: plain(&c.NodeName, 64),
			doc: "Name of this server in its log. Empty: the host's name."},
		{key: "workers", into: &c.Workers, check: within(&c.Workers, 1, 10_000),
			doc: "How many requests to providers and receivers may be under way at a time, which [tenants share](concepts.md#shares). A quarter more may be for those that have none."},
		{key: "log.level", common: true, into: &c.Log.Level, check: oneOf(&c.Log.Level, "debug", "info", "warn", "error"),
			doc: "The least level that is logged: `debug`, `info`, `warn` or `error`."},
		{key: "log.format", into: &c.Log.Format, check: oneOf(&c.Log.Format, "auto", "json", "text"),
			doc: "`json`, `text`, or `auto` for text on a terminal and JSON elsewhere."},
		{key: "shutdown.grace", into: &c.ShutdownWait, check: between(&c.ShutdownWait, time.Second, 10*time.Minute),
			doc: "How long a server that stops waits for requests under way. What is cut off then is sent again by the next start. 10 s later the process has ended, whatever hangs."},
		{key: "docs.enabled", into: &c.Docs,
			doc: "Whether the API's reference is served at `/docs`."},
	}
}

func (c *Config) limitSettings() []setting {
	const day, year = tenants.MinRetention, tenants.MaxRetention
	return []setting{
		{key: "limits.body_bytes", into: &c.Limits.BodyBytes, check: within(&c.Limits.BodyBytes, 1<<10, 64<<20),
			doc: "The longest request body in bytes."},
		{key: "limits.queue", into: &c.Limits.Queue, check: within(&c.Limits.Queue, 16, 1<<20),
			doc: "How many writes may wait for the database. More are answered with 503 and `Retry-After`."},
		{key: "limits.backlog", into: &c.Limits.Backlog, check: within(&c.Limits.Backlog, 1000, 1_000_000_000),
			doc: "How many deliveries may be due and wait for their turn, which [tenants share](concepts.md#shares). Who has its part is answered with 429 and `Retry-After`."},
		{key: "limits.unfinished", into: &c.Limits.Unfinished, check: within(&c.Limits.Unfinished, 1000, 10_000_000_000),
			doc: "How many deliveries may be stored that are not final: due, waiting for a retry, or held. Tenants share it in the same way."},
		{key: "limits.requests", into: &c.Limits.Requests, check: within(&c.Limits.Requests, 16, 100_000),
			doc: "How many requests a server has in hand at a time: a tenant's keys have a quarter at most, the tokens of its users a quarter of that. More are answered with 429, or 503 where all are taken."},
		{key: "limits.request_bytes", into: &c.Limits.RequestBytes, check: within(&c.Limits.RequestBytes, 1<<20, 1<<36),
			doc: "How many bytes the bodies of requests in hand may have together, shared in the same way."},
		{key: "limits.requests_per_second", into: &c.Limits.RequestsPerSecond, check: within(&c.Limits.RequestsPerSecond, 0, 1_000_000),
			doc: "How many requests of a tenant are taken in a second, on average, by all servers of the database together. `0` is no limit."},
		{key: "limits.urgent_per_second", into: &c.Limits.UrgentPerSecond, check: within(&c.Limits.UrgentPerSecond, 1, 1_000_000),
			doc: "How many urgent notifications of a tenant are taken in a second, on average, by all servers together."},
		{key: "limits.devices", into: &c.Limits.Devices, check: within(&c.Limits.Devices, 1000, 1_000_000_000),
			doc: "How many devices a tenant may have, retired ones included. Those that are known can be registered again; a new one is answered with 429."},
		{key: "limits.endpoints", into: &c.Limits.Endpoints, check: within(&c.Limits.Endpoints, 100, 100_000_000),
			doc: "How many webhook endpoints a tenant may have. One more is answered with 429."},
		{key: "retention.sent", into: &c.Retention.Sent, check: between(&c.Retention.Sent, 0, year),
			doc: "How long the content of a notification is kept after the last of its deliveries is final."},
		{key: "retention.dead", into: &c.Retention.Dead, check: between(&c.Retention.Dead, day, year),
			doc: "How long dead letters are kept with their content, to be replayed."},
		{key: "retention.rows", into: &c.Retention.Rows, check: between(&c.Retention.Rows, day, year),
			doc: "How long it can be asked what became of a notification. Revoked and expired API keys are listed as long. It decides how large the " +
				"database becomes: see [how much room it takes](operations/durability.md#how-much-room-it-takes)."},
		{key: "retention.credentials", into: &c.Retention.Credentials, check: between(&c.Retention.Credentials, time.Hour, year),
			doc: "How long the secret of a credential is kept after a newer version has replaced it."},
		{key: "erasure_log", into: &c.ErasureLog,
			doc: "The file in which erasures of users and deletions of tenants are written, to be applied again after a restore. Empty: beside the " +
				"SQLite file, with `.erasures` behind its name; none with PostgreSQL. `off` switches it off. See [privacy](operations/privacy.md)."},
		{key: "devices.stale_after", into: &c.StaleAfter, check: zeroOr(&c.StaleAfter, between(&c.StaleAfter, tenants.MinStale, tenants.MaxStale)),
			doc: "After how long without a registration, and without anything sent successfully, a device is retired. `0s` is never."},
	}
}

func (c *Config) channelSettings() []setting {
	list := []setting{
		{key: "channels.fcm.endpoint", into: &c.FCM.Endpoint, check: baseURL(&c.FCM.Endpoint),
			doc: "Where FCM is reached."},
		{key: "channels.fcm.token_uris", into: &c.FCM.TokenURIs, check: c.checkTokenURIs(),
			doc: "Token endpoints that a service account may name besides Google's own."},
		{key: "channels.apns.production_url", into: &c.APNs.ProductionURL, check: baseURL(&c.APNs.ProductionURL),
			doc: "Where APNs is reached for apps of the App Store and TestFlight."},
		{key: "channels.apns.sandbox_url", into: &c.APNs.SandboxURL, check: baseURL(&c.APNs.SandboxURL),
			doc: "Where APNs is reached for apps that Xcode has installed."},
		{key: "channels.apns.ca_file", into: &c.APNs.CAFile, check: readable(&c.APNs.CAFile),
			doc: "A PEM file with the authorities that APNs' certificate is verified with. Empty: the system's."},
		{key: "channels.webpush.hosts", into: &c.WebPush.Hosts,
			doc: "The push services that browsers may name; `*.example.com` is every host below it. Empty: those of Chrome, Firefox, Safari and Edge."},
		{key: "channels.webpush.any_host", into: &c.WebPush.AnyHost,
			doc: "Allows every push service. Whoever may register a device can then make this server call a host of their choice."},
	}
	list = append(list, c.WebPush.settings("channels.webpush", "a push service")...)
	return append(list, c.Webhook.settings("channels.webhook", "a webhook's receiver")...)
}

func (e *EgressConfig) settings(section, whom string) []setting {
	return []setting{
		{key: section + ".allow", into: &e.Allow,
			doc: "Private address ranges in which " + whom + " may be reached, such as `10.0.0.0/8`. Empty: public addresses only."},
		{key: section + ".allow_http", into: &e.AllowHTTP,
			doc: "Whether " + whom + " may be reached without TLS."},
		{key: section + ".any_port", into: &e.AnyPort,
			doc: "Whether " + whom + " may be reached on other ports than 443, and 80 without TLS."},
		{key: section + ".timeout", into: &e.Timeout, check: between(&e.Timeout, time.Second, 2*time.Minute),
			doc: "How long one request to " + whom + " may take."},
	}
}

// rules are the addresses that may be reached.
func (e EgressConfig) rules() egress.Rules {
	return egress.Rules{Allow: e.Allow, AllowHTTP: e.AllowHTTP, AnyPort: e.AnyPort}
}
