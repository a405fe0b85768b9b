package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store/db"
)

// Config is what the operator has set. Load makes one; settings lists what every
// member means.
type Config struct {
	Listen      string
	AdminListen string // "off": none
	DatabaseURL string // of PostgreSQL, or the path of an SQLite file
	Connections int
	Migrate     string // auto, check or off
	Role        string // all, api or worker
	KeyRing     string // the text of the key ring; see KeyRingText
	KeyRingFile string
	NodeName    string
	Workers     int

	Log          LogConfig
	Limits       LimitsConfig
	Retention    RetentionConfig
	FCM          FCMConfig
	APNs         APNsConfig
	WebPush      WebPushConfig
	Webhook      EgressConfig
	ErasureLog   string        // see ErasureLogPath
	StaleAfter   time.Duration // 0: devices are never stale
	ShutdownWait time.Duration
	Docs         bool
}

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  string // debug, info, warn or error
	Format string // json, text or auto
}

// LimitsConfig bounds what one server takes.
type LimitsConfig struct {
	BodyBytes         int64
	Queue             int   // writes that wait for the database
	Backlog           int   // deliveries that are due
	Unfinished        int   // deliveries that are not final
	Requests          int   // in hand
	RequestBytes      int64 // of their bodies
	RequestsPerSecond float64
	UrgentPerSecond   int
	Devices           int // of a tenant
	Endpoints         int // of a tenant
}

// RetentionConfig says how long things are kept.
type RetentionConfig struct {
	Sent time.Duration // the content of notifications whose deliveries are final
	Dead time.Duration // dead letters with their content
	Rows time.Duration // everything else of a notification
	// Credentials is for the secrets of credentials that were replaced.
	Credentials time.Duration
}

// FCMConfig is for proxies, private mirrors and simulators.
type FCMConfig struct {
	Endpoint  string
	TokenURIs []string // that service accounts may name besides Google's own
}

// APNsConfig is for proxies, private mirrors and simulators.
type APNsConfig struct {
	ProductionURL string
	SandboxURL    string
	CAFile        string
}

// WebPushConfig says which push services browsers may name.
type WebPushConfig struct {
	EgressConfig
	Hosts   []string
	AnyHost bool
}

// EgressConfig says which hosts that tenants and devices choose may be reached.
type EgressConfig struct {
	Allow     []netip.Prefix
	AllowHTTP bool
	AnyPort   bool
	Timeout   time.Duration
}

// defaultConfig is what an operator gets who sets nothing.
func defaultConfig() Config {
	const day = 24 * time.Hour
	return Config{
		Listen: "127.0.0.1:8080", AdminListen: "127.0.0.1:8081",
		DatabaseURL: "./carillon.db", Connections: 16, Migrate: migrateAuto, Role: delivery.RoleAll, Workers: 512,
		Log:       LogConfig{Level: "info", Format: "auto"},
		Limits:    LimitsConfig{BodyBytes: 1 << 20, Queue: 4096, Backlog: 1_000_000, Unfinished: 10_000_000, Requests: 1024, RequestBytes: 1 << 30, UrgentPerSecond: 100, Devices: 10_000_000, Endpoints: 100_000},
		Retention: RetentionConfig{Sent: day, Dead: 30 * day, Rows: 30 * day, Credentials: 30 * day},
		FCM:       FCMConfig{Endpoint: "https://fcm.googleapis.com"},
		APNs:      APNsConfig{ProductionURL: "https://api.push.apple.com", SandboxURL: "https://api.sandbox.push.apple.com"},
		WebPush:   WebPushConfig{EgressConfig: EgressConfig{Timeout: 20 * time.Second}},
		Webhook:   EgressConfig{Timeout: 20 * time.Second},

		ShutdownWait: 25 * time.Second, Docs: true,
	}
}

// What a server does about migrations that are missing.
const (
	migrateAuto  = "auto"
	migrateCheck = "check"
	migrateOff   = "off"
)

// erasureLogOff is how the erasure log is switched off.
const erasureLogOff = "off"

// ErasureLogPath is the file in which erasures are written: "" for none.
func (c Config) ErasureLogPath() string {
	switch {
	case c.ErasureLog == erasureLogOff:
		return ""
	case c.ErasureLog == "" && !db.IsPostgres(c.DatabaseURL):
		return strings.TrimPrefix(c.DatabaseURL, "sqlite:") + ".erasures"
	}
	return c.ErasureLog
}

// KeyRingText is the text of the key ring, whichever way it was set: "" if it
// was not. The error never holds it.
func (c Config) KeyRingText() (string, error) {
	if c.KeyRingFile == "" {
		return c.KeyRing, nil
	}
	b, err := os.ReadFile(c.KeyRingFile)
	if err != nil {
		return "", fmt.Errorf("read the key ring; see the setting key_ring_file: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Node is the name of this server.
func (c Config) Node() string {
	if c.NodeName != "" {
		return c.NodeName
	}
	host, err := os.Hostname()
	if err != nil {
		return "carillon"
	}
	return host
}

// String keeps the key ring out of logs, whatever verb prints it.
func (Config) String() string { return "carillon configuration" }

// GoString does the same for %#v.
func (c Config) GoString() string { return c.String() }
