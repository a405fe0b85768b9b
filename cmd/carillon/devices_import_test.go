package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/devices/lists"
)

// TestDevicesImport: a list of which some rows are at fault, then once more.
func TestDevicesImport(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	k.phone("bob", "token-2")
	file, refused := filepath.Join(k.dir, "users.csv"), filepath.Join(k.dir, "refused.ndjson")
	var list strings.Builder
	list.WriteString("id,push token,plan,comment\n")
	const n = 1200
	for i := range n {
		fmt.Fprintf(&list, "user-%d,token-%d,pro,\n", i, i)
	}
	list.WriteString("user-x,to ken,pro,\n,token-y,pro,\nuser-z,\"token-z\n")
	require.NoError(t, os.WriteFile(file, []byte(list.String()), 0o600))
	args := []string{"devices", "import", file, "--column", "id=user", "--column", "push token=token", "--column", "plan=tags.plan", "--channel", "fcm"}

	code, out, errs := k.command(append(args, "--dry-run")...)
	require.Equal(t, exitFailed, code)
	require.Contains(t, out, fmt.Sprintf("would send %d rows, 1 cannot be read", n+2))
	require.Contains(t, errs, "line 1204 has a quote that is never closed")
	require.Contains(t, errs, `are left out: ["comment"]`)

	code, out, errs = k.command(append(args, "--errors", refused)...)
	require.Equal(t, exitFailed, code, "scripts learn that not all are registered")
	require.Contains(t, errs, "3 rows were refused")
	require.Contains(t, out, fmt.Sprintf("registered %d (%d created, 0 updated, 1 rebound, 0 replaced), refused 3, ", n, n-1))
	b, err := os.ReadFile(refused)
	require.NoError(t, err)
	var told []refusal
	for line := range bytes.Lines(b) {
		var r refusal
		require.NoError(t, json.Unmarshal(line, &r))
		require.NotContains(t, r.Reason, "to ken", "no token is in it")
		told = append(told, refusal{Line: r.Line, Field: r.Field, Code: r.Code})
	}
	require.ElementsMatch(t, []refusal{{Line: 1204, Code: "unreadable"}, {Line: 1202, Field: "token", Code: "invalid"}, {Line: 1203, Field: "user", Code: "invalid"}}, told)

	_, out, _ = k.command(append(args, "--from-line", "1192")...)
	require.Contains(t, out, "registered 10 (0 created, 10 updated, 0 rebound, 0 replaced), refused 3, ")
	require.Regexp(t, `(?m)^dev_\w+ +user-2 +default +fcm +active`, k.must("devices", "list", "--user", "user-2"))
}

func TestWhatCannotBeImported(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "list.txt")
	require.NoError(t, os.WriteFile(file, []byte("t1\n"), 0o600))
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{file}, exitUsage, "give --format"},
		{[]string{file, "--format", "csv", "--column", "token"}, exitUsage, "--column must be like"},
		{[]string{file, "--format", "sns", "--column", "a=token"}, exitUsage, "is for --format csv only"},
		{[]string{file, "--format", "xml"}, exitFailed, `the format "xml" is not known`},
		{[]string{file, "--format", "tokens"}, exitFailed, "give one: fcm or apns"},
		{[]string{file, "--format", "csv"}, exitFailed, "say which is which, as column=field"},
		{[]string{file + "x", "--format", "csv"}, exitFailed, "no such file"},
		{[]string{"-", "--format", "csv"}, exitFailed, "the file is empty"},
	} {
		code, _, errs := command(t, nil, append([]string{"devices", "import", "--dry-run"}, c.args...)...)
		require.Equal(t, c.code, code, errs)
		require.Contains(t, errs, c.want)
	}
	require.Equal(t, lists.NDJSON, formatOf("a.JSONL.gz"))
}

// TestAnImportTriesAgain: where the server has no time, or not for all, and it says where it
// stopped when that does not help.
func TestAnImportTriesAgain(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch n := calls.Add(1); {
		case n == 1:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"status":503,"code":"unavailable","detail":"later"}`)
		case n == 2 || n > 3:
			_, _ = io.WriteString(w, `{"results":[{"id":"dev_1","status":"created"},{"error":{"status":503,"code":"unavailable","detail":"later"}}]}`)
		default:
			_, _ = io.WriteString(w, `{"results":[{"id":"dev_1","status":"updated"},{"id":"dev_2","status":"created"}]}`)
		}
	}))
	t.Cleanup(server.Close)
	imported := func() (string, error) {
		var out, errs bytes.Buffer
		c := &cli{streams: streams{in: strings.NewReader("user,token\n\nu1,t1\nu2,t2\n"), out: &out, err: &errs}}
		err := c.importDevices(t.Context(), &clientFlags{url: server.URL, key: "crl_key"},
			importOrder{file: "-", list: lists.Options{Format: lists.CSV}, fromLine: 1, pause: time.Nanosecond})
		return out.String(), err
	}
	out, err := imported()
	require.NoError(t, err)
	require.Contains(t, out, "registered 2 (1 created, 1 updated,")
	require.EqualValues(t, 3, calls.Load())
	out, err = imported()
	require.ErrorContains(t, err, "go on with --from-line 3")
	require.Contains(t, out, "registered 0 ")
	require.EqualValues(t, 3+importTries, calls.Load())
}
