package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// command runs the program.
func command(t *testing.T, environ []string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, streams{in: strings.NewReader(""), out: &o, err: &e, environ: environ})
	return code, o.String(), e.String()
}

func TestConfigPrintIsAFileThatCanBeUsed(t *testing.T) {
	t.Parallel()
	environ := []string{"CARILLON_KEY_RING=s3cret", "CARILLON_WORKERS=5", "CARILLON_CHANNELS_WEBHOOK_ALLOW=10.0.0.0/8", "CARILLON_CHANNELS_WEBPUSH_HOSTS=a.example"}
	code, redacted, errs := command(t, environ, "config", "print", "--redact")
	require.Zero(t, code, errs)
	require.Contains(t, redacted, "key_ring: '***'")
	require.NotContains(t, redacted, "s3cret")
	_, byDefault, _ := command(t, environ, "config", "print")
	require.Equal(t, redacted, byDefault)

	_, whole, _ := command(t, environ, "config", "print", "--redact=false")
	again, _, err := loaded(t, nil, "--config", write(t, whole))
	require.NoError(t, err)
	want, _, err := loaded(t, environ)
	require.NoError(t, err)
	require.Equal(t, valuesOf(want), valuesOf(again))
	require.Equal(t, "s3cret", again.KeyRing)
}

func TestConfigReferenceNamesEverySetting(t *testing.T) {
	t.Parallel()
	code, out, _ := command(t, nil, "config", "reference")
	require.Zero(t, code)
	defaults := defaultConfig()
	for _, s := range defaults.settings() {
		require.Contains(t, out, "`"+s.key+"`<br>`"+s.env()+"`")
	}
	require.Contains(t, out, "| `retention.dead`<br>`CARILLON_RETENTION_DEAD`<br>`--retention-dead` | `30d` |")
	require.Contains(t, out, "| `key_ring`<br>`CARILLON_KEY_RING` |  |")
	for line := range strings.Lines(out) {
		require.Equal(t, 5, strings.Count(line, "|"), line)
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		environ []string
		args    []string
		code    int
		says    string // on stderr
	}{
		{nil, nil, exitOK, ""},
		{nil, []string{"--help"}, exitOK, ""},
		{nil, []string{"version"}, exitOK, ""},
		{nil, []string{"config"}, exitOK, ""},
		{[]string{"CARILLON_WORKER=1"}, []string{"config", "print"}, exitOK, "CARILLON_WORKER is not a setting"},
		{nil, []string{"verson"}, exitUsage, "did you mean version?"},
		{nil, []string{"config", "dump"}, exitUsage, `carillon config has no command "dump"`},
		{nil, []string{"version", "now"}, exitUsage, "unknown command"},
		{nil, []string{"version", "--nope"}, exitUsage, "unknown flag"},
		{[]string{"CARILLON_WORKERS=x"}, []string{"config", "print"}, exitUsage, "workers (CARILLON_WORKERS, --workers)"},
	} {
		code, out, errs := command(t, x.environ, x.args...)
		require.Equal(t, x.code, code, x.args)
		require.Contains(t, errs, x.says, x.args)
		require.Equal(t, x.code != exitOK, out == "", x.args)
	}
}

func TestHelpShowsTheCommonSettings(t *testing.T) {
	t.Parallel()
	_, out, _ := command(t, nil, "healthcheck", "--help")
	require.Contains(t, out, "--config")
	require.Contains(t, out, "--listen")
	require.NotContains(t, out, "--channels-")
}

func TestHealthcheck(t *testing.T) {
	t.Parallel()
	var status atomic.Int32
	status.Store(http.StatusOK)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			w.WriteHeader(int(status.Load()))
		} else {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	listen := strings.TrimPrefix(srv.URL, "http://")
	everywhere := "0.0.0.0" + listen[strings.LastIndexByte(listen, ':'):]
	for _, l := range []string{listen, everywhere} {
		code, _, errs := command(t, nil, "healthcheck", "--listen", l)
		require.Zero(t, code, errs)
	}
	worker := []string{"CARILLON_ROLE=worker", "CARILLON_DATABASE_URL=postgres://h/db", "CARILLON_LISTEN=127.0.0.1:1"}
	code, _, errs := command(t, worker, "healthcheck", "--admin-listen", listen)
	require.Zero(t, code, errs)
	code, _, errs = command(t, worker, "healthcheck", "--admin-listen", "off")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "admin.listen")
	status.Store(http.StatusServiceUnavailable)
	code, _, errs = command(t, nil, "healthcheck", "--listen", listen)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "503")
	srv.Close()
	code, _, errs = command(t, nil, "healthcheck", "--listen", listen)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "does not answer")
}

func TestDialAddress(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{":8080": "localhost:8080", "0.0.0.0:1": "127.0.0.1:1", "[::]:1": "[::1]:1", "10.0.0.1:2": "10.0.0.1:2", "host:3": "host:3"} {
		require.Equal(t, want, dialAddress(listen))
	}
}

func TestTheVersionOfABuild(t *testing.T) {
	t.Parallel()
	for want, info := range map[string]debug.BuildInfo{
		"v1.2.3": {Main: debug.Module{Version: "v1.2.3"}},
		"dev":    {Main: debug.Module{Version: "(devel)"}},
		"dev-0123456789ab-dirty": {Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}}},
	} {
		require.Equal(t, want, buildVersion(&info))
	}
	_, out, _ := command(t, nil, "version")
	require.Regexp(t, `^carillon \S+ \(go\S+, \w+/\w+\)\n$`, out)
}

func TestLogFormats(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{"json": `"msg":"seen"`, "auto": `"msg":"seen"`, "text": `msg=seen`} {
		var b bytes.Buffer
		log := newLogger(LogConfig{Level: "warn", Format: format}, &b)
		log.Info("unseen")
		log.Warn("seen")
		require.Contains(t, b.String(), want)
		require.NotContains(t, b.String(), "unseen")
	}
}
