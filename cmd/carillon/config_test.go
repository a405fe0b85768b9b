package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store/db"
)

// write makes a file of settings.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "carillon.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// loaded loads from an environment and flags.
func loaded(t *testing.T, environ []string, args ...string) (Config, []string, error) {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	addFlags(flags)
	require.NoError(t, flags.Parse(args))
	return load(source{environ: environ, flags: flags})
}

// faultsOf are the lines of a configError.
func faultsOf(t *testing.T, err error) []string {
	t.Helper()
	var faults configError
	require.ErrorAs(t, err, &faults)
	return faults
}

func TestNothingSetIsTheDefaults(t *testing.T) {
	t.Parallel()
	c, unknown, err := loaded(t, nil)
	require.NoError(t, err)
	require.Empty(t, unknown)
	require.Equal(t, valuesOf(defaultConfig()), valuesOf(c))
	require.Equal(t, "127.0.0.1:8080", c.Listen)
	require.Equal(t, 30*24*time.Hour, c.Retention.Dead)
	require.True(t, c.Docs)
}

// valuesOf are the values of all settings.
func valuesOf(c Config) map[string]string {
	out := map[string]string{}
	for _, s := range c.settings() {
		out[s.key] = valueText(s.into)
	}
	return out
}

func TestLaterSourcesWin(t *testing.T) {
	t.Parallel()
	path := write(t, "listen: file:1\nnode: {name: file}\nlog.level: warn\nworkers: 7\nlimits:\n  body_bytes: 2048\n")
	c, _, err := loaded(t, []string{"CARILLON_CONFIG=" + path, "CARILLON_NODE_NAME=env", "CARILLON_WORKERS=8", "CARILLON_LISTEN=", "PATH=/bin"}, "--workers=9")
	require.NoError(t, err)
	require.Equal(t, "file:1", c.Listen, "a variable set to nothing is not set")
	require.Equal(t, "env", c.NodeName)
	require.Equal(t, 9, c.Workers)
	require.Equal(t, "warn", c.Log.Level)
	require.Equal(t, int64(2048), c.Limits.BodyBytes)

	other := write(t, `{"workers": 10, "docs": {"enabled": false}}`)
	c, _, err = loaded(t, []string{"CARILLON_CONFIG=" + path}, "--config", other)
	require.NoError(t, err)
	require.Equal(t, 10, c.Workers)
	require.False(t, c.Docs)
	require.Equal(t, "127.0.0.1:8080", c.Listen)
}

func TestEverySettingIsSetInEveryWay(t *testing.T) {
	t.Parallel()
	ca := write(t, "pem")
	values := map[string]string{
		"listen": ":1", "admin.listen": "off", "database.url": "sqlite:x.db", "database.connections": "32", "migrate": "check", "role": "worker", "key_ring": "k", "key_ring_file": "f", "node.name": "n",
		"workers": "3", "log.level": "debug", "log.format": "text", "shutdown.grace": "40s", "docs.enabled": "false",
		"limits.body_bytes": "4096", "limits.queue": "99", "limits.backlog": "5000", "limits.unfinished": "6000", "limits.requests": "64", "limits.request_bytes": "2097152", "limits.urgent_per_second": "7", "limits.devices": "2000", "limits.endpoints": "200", "limits.requests_per_second": "2.5",
		"retention.sent": "12h", "retention.dead": "2d", "retention.rows": "3d", "retention.credentials": "4d",
		"erasure_log": "/var/log/erasures", "devices.stale_after": "270d",
		"channels.fcm.endpoint": "http://localhost:1", "channels.fcm.token_uris": "https://a.example/t,https://b.example/t",
		"channels.apns.production_url": "https://p.example", "channels.apns.sandbox_url": "https://s.example", "channels.apns.ca_file": ca,
		"channels.webpush.hosts": "a.example,*.b.example", "channels.webpush.any_host": "true",
		"channels.webpush.allow": "10.0.0.0/8", "channels.webpush.allow_http": "true", "channels.webpush.any_port": "true", "channels.webpush.timeout": "3s",
		"channels.webhook.allow": "127.0.0.0/8,fd00::/8", "channels.webhook.allow_http": "true", "channels.webhook.any_port": "true", "channels.webhook.timeout": "4s",
	}
	defaults := defaultConfig()
	seen := map[string]bool{}
	for _, s := range defaults.settings() {
		value, ok := values[s.key]
		require.True(t, ok, s.key)
		require.NotEqual(t, value, valueText(s.into), s.key)
		for _, name := range []string{s.env(), s.flag()} {
			require.False(t, name != "" && seen[name], name)
			seen[name] = true
		}
		require.Regexp(t, "^[`A-Z].*\\.$", s.doc)
		require.NotContains(t, s.doc, "|")

		var also []string
		if s.key == "role" { // which an SQLite file does not have
			also = []string{"CARILLON_DATABASE_URL=postgres://host/name"}
		}
		check := func(c Config, err error) {
			require.NoError(t, err, s.key)
			want := valuesOf(defaultConfig())
			want[s.key] = value
			if also != nil {
				want["database.url"] = "postgres://host/name"
			}
			require.Equal(t, want, valuesOf(c), s.key)
		}
		c, unknown, err := loaded(t, append(also, s.env()+"="+value))
		check(c, err)
		require.Empty(t, unknown)
		c, _, err = loaded(t, append(also, "CARILLON_CONFIG="+write(t, s.key+": "+fmt.Sprintf("%q", value))))
		check(c, err)
		if s.flag() != "" {
			c, _, err = loaded(t, also, "--"+s.flag()+"="+value)
			check(c, err)
		}
	}
	require.Len(t, values, len(defaults.settings()))
}

func TestAllFaultsAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	path := write(t, "listen: [a, b]\nworkerz: 3\nlimits: {queue: many, depth: {of: 1}}\nchannels:\n  webhook:\n    allow: [10.0.0.0/8, nonsense]\n")
	_, _, err := loaded(t, []string{"CARILLON_CONFIG=" + path, "CARILLON_WORKERS=0", "CARILLON_SHUTDOWN_GRACE=5", "CARILLON_KEY_RING=s3cret", "CARILLON_KEY_RING_FILE=x"},
		"--log-level=loud", "--database-url=mysql://u:s3cret@h/db", "--channels-fcm-endpoint=ftp://x", "--docs-enabled=perhaps")
	faults := faultsOf(t, err)
	for _, want := range []string{
		`listen (CARILLON_LISTEN, --listen): needs one value`,
		`"workerz" is not a setting`,
		`"limits.depth.of" is not a setting`,
		`limits.queue (CARILLON_LIMITS_QUEUE, --limits-queue): "many" is not a whole number`,
		`channels.webhook.allow (CARILLON_CHANNELS_WEBHOOK_ALLOW, --channels-webhook-allow): "nonsense" is not a range`,
		`workers (CARILLON_WORKERS, --workers): 0 is out of range; use 1 to 10000`,
		`shutdown.grace (CARILLON_SHUTDOWN_GRACE, --shutdown-grace): "5" is not a time; use a number with its unit`,
		`key_ring (CARILLON_KEY_RING): is set beside key_ring_file`,
		`log.level (CARILLON_LOG_LEVEL, --log-level): "loud" is not a choice; use debug, info, warn, error`,
		`database.url (CARILLON_DATABASE_URL, --database-url): has the scheme "mysql"`,
		`channels.fcm.endpoint (CARILLON_CHANNELS_FCM_ENDPOINT, --channels-fcm-endpoint): is not a URL`,
		`docs.enabled (CARILLON_DOCS_ENABLED, --docs-enabled): "perhaps" is not true or false`,
	} {
		require.Contains(t, strings.Join(faults, "\n"), want)
	}
	require.Len(t, faults, 12)
	require.NotContains(t, err.Error(), "s3cret")
}

func TestValuesOutOfBounds(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{
		"LISTEN=8080", "LISTEN=:70000", "LISTEN=host:http", "ADMIN_LISTEN=on", "DATABASE_URL=sqlite:", "NODE_NAME=a b", "WORKERS=10001", "WORKERS=1.5",
		"LOG_FORMAT=xml", "SHUTDOWN_GRACE=0s", "SHUTDOWN_GRACE=1d", "LIMITS_BODY_BYTES=1023", "LIMITS_REQUESTS_PER_SECOND=-1", "LIMITS_REQUESTS_PER_SECOND=NaN",
		"RETENTION_DEAD=23h", "RETENTION_SENT=-1s", "RETENTION_ROWS=367d", "RETENTION_ROWS=99999d", "CHANNELS_FCM_TOKEN_URIS=https://ok.example,x",
		"CHANNELS_APNS_SANDBOX_URL=https://u:p@x.example", "CHANNELS_APNS_CA_FILE=/does/not/exist", "CHANNELS_WEBHOOK_ALLOW=10.0.0.0/33", "CHANNELS_WEBHOOK_TIMEOUT=3m",
	} {
		_, _, err := loaded(t, []string{envPrefix + setting})
		require.Len(t, faultsOf(t, err), 1, setting)
		require.Contains(t, err.Error(), strings.Split(envPrefix+setting, "=")[0])
	}
}

func TestFilesThatAreNone(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"listen: [":          "is not a YAML or JSON file of settings",
		"- s3cret":           "settings are key: value",
		"s3cret":             "settings are key: value",
		"listen: a\nlisten:": "is not a YAML or JSON file of settings",
		"key_ring: [s3cret]": "key_ring (CARILLON_KEY_RING): cannot be read",
		"admin: off":         `"admin" is not a setting`,
	} {
		_, _, err := loaded(t, nil, "--config", write(t, text))
		require.ErrorContains(t, err, want, text)
		require.NotContains(t, err.Error(), "s3cret")
	}
	_, _, err := loaded(t, nil, "--config", "/does/not/exist")
	require.ErrorContains(t, err, "--config (CARILLON_CONFIG)")
	for _, empty := range []string{"", "{}", "limits:\nlisten:\n", "# nothing"} {
		_, _, err := loaded(t, nil, "--config", write(t, empty))
		require.NoError(t, err, empty)
	}
}

func TestUnknownVariablesAreTold(t *testing.T) {
	t.Parallel()
	_, unknown, err := loaded(t, []string{"CARILLON_WORKER=3", "CARILLON_SERVICE_HOST=10.0.0.1", "CARILLON_PORT_8080_TCP=x", "CARILLON_PORT=x", "CARILLON_OLD=", "OTHER=1"})
	require.NoError(t, err)
	require.Equal(t, []string{"CARILLON_WORKER"}, unknown)
}

func TestTheKeyRingComesFromTextOrFile(t *testing.T) {
	t.Parallel()
	text, err := Config{KeyRing: "abc"}.KeyRingText()
	require.NoError(t, err)
	require.Equal(t, "abc", text)
	text, err = Config{KeyRingFile: write(t, "def\n")}.KeyRingText()
	require.NoError(t, err)
	require.Equal(t, "def", text)
	_, err = Config{KeyRingFile: "/does/not/exist"}.KeyRingText()
	require.ErrorIs(t, err, os.ErrNotExist)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		require.NotContains(t, fmt.Sprintf(verb, Config{KeyRing: "abc"}), "abc")
	}
}

func TestPathsAndAddresses(t *testing.T) {
	t.Parallel()
	c, _, err := loaded(t, []string{"CARILLON_DATABASE_URL=postgres://u:s3cret@h1:5432,h2:5433/db?target_session_attrs=read-write", "CARILLON_ROLE=worker"})
	require.NoError(t, err)
	var b strings.Builder
	require.NoError(t, printConfig(&b, c, true))
	require.NotContains(t, b.String(), "s3cret")
	require.Contains(t, b.String(), "postgres://u:xxxxx@h1:5432,h2:5433/db")
	_, _, err = loaded(t, nil, "--role=api")
	require.ErrorContains(t, err, "needs PostgreSQL")
	_, _, err = loaded(t, nil, "--database-url=postgres://u:s3cret@h:port/db")
	require.ErrorContains(t, err, "is no URL of PostgreSQL")
	require.NotContains(t, err.Error(), "s3cret")
	for _, text := range []string{"host=h user=u password=s3cret dbname=d", "password = s3cret", "file:c.db?mode=rwc"} {
		_, _, err = loaded(t, nil, "--database-url="+text)
		require.ErrorContains(t, err, "database.url", text)
		require.NotContains(t, err.Error(), "s3cret")
	}
	_, _, err = loaded(t, nil, "--database-url=/srv/my-host=1/c.db")
	require.NoError(t, err)
	c, _, err = loaded(t, []string{"CARILLON_CHANNELS_WEBHOOK_ALLOW=192.168.1.7, 10.1.2.3/8"})
	require.NoError(t, err)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("192.168.1.7/32"), netip.MustParsePrefix("10.0.0.0/8")}, c.Webhook.rules().Allow)
	require.Equal(t, "n", Config{NodeName: "n"}.Node())
	require.NotEmpty(t, Config{}.Node())
}

// TestADatabaseURLThatIsNotWrittenWellShowsNothing: neither when it is checked nor
// because it was taken for the name of a host or of a file.
func TestADatabaseURLThatIsNotWrittenWellShowsNothing(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"postgres://u:p@s3cret@h/x", "postgres://u@h@s3cret/x", "postgres://u:p@h@s3cret:1/x", "postgres://h:1/u:s3cret@h", "postgres://h/x?host=u:s3cret@h",
		"postgres://u:s3cret@h:port/x", "postgres://u:p%s3cret@h/x", "postgres://u:p s3cret@h/x", "postgres://u:p/s3cret@h/x",
		"postgres:/u:s3cret@h/x", "postgres:u:s3cret@h/x", "postgresql:/u:s3cret@h/x", "postgres//u:s3cret@h/x", "Postgres:/u:s3cret@h/x",
		"postgres:/u:s3cret@h://x", "mysql:/u:s3cret@h/x", "u:s3cret@h/x", "//u:s3cret@h/x", "sqlite:postgres:/u:s3cret@h/x", "sqlite:u:s3cret@h/x",
	} {
		_, _, err := loaded(t, nil, "--database-url="+raw)
		require.ErrorContains(t, err, "database.url", raw)
		require.NotContains(t, err.Error(), "s3cret", raw)
		code, out, errs := command(t, nil, "bench", "--postgres", raw)
		require.NotZero(t, code)
		require.NotContains(t, out+errs, "s3cret", raw)
		if db.IsPostgres(raw) {
			_, err = db.Migrations(t.Context(), raw, false)
			require.ErrorContains(t, err, "the database URL ")
			require.NotContains(t, err.Error(), "s3cret", raw)
		}
	}
	for _, raw := range []string{"postgres://u:p%40ss@h/x", "postgres://h:1,i:2/x?user=a%40b&password=c@d", "sqlite:c.db", "/srv/a@b/c.db", "a@b.db", `C:\data\c.db`, "c:/data/c.db"} {
		_, _, err := loaded(t, nil, "--database-url="+raw)
		require.NoError(t, err, raw)
	}
}

func TestDurationsReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	for text, d := range map[string]time.Duration{"25s": 25 * time.Second, "30d": 720 * time.Hour, "12h": 12 * time.Hour, "1h30m": 90 * time.Minute,
		"10m": 10 * time.Minute, "1m30s": 90 * time.Second, "0s": 0, "1h0m5s": time.Hour + 5*time.Second, "1.5s": 1500 * time.Millisecond, "25h": 25 * time.Hour} {
		got, err := parseDuration(text)
		require.NoError(t, err)
		require.Equal(t, d, got)
		require.Equal(t, text, formatDuration(d))
	}
}
