package main

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillonhq/carillon/devices/lists"
)

// drawnDevices are devices of all channels, each with an address, and where it has one an installation, of its own.
func drawnDevices(t *testing.T, seed int, pushService, pushKey string) []lists.Device {
	t.Helper()
	p256dh, err := ecdh.P256().GenerateKey(rand.Reader)
	require.NoError(t, err)
	b64 := base64.RawURLEncoding.EncodeToString
	text := rapid.SampledFrom([]string{"", "a", `"quoted", and more`, "=1+1", "größe ✓", `\.`, "semi;colon"})
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) lists.Device {
		id := rapid.StringMatching(`[0-9a-f]{64}`).Draw(t, "address")
		at := func(name string) time.Time {
			if rapid.Bool().Draw(t, name) {
				return time.Time{}
			}
			return time.UnixMilli(rapid.Int64Range(1, 1_700_000_000_000).Draw(t, name+" at")).UTC()
		}
		d := lists.Device{User: "u" + rapid.StringMatching(`[1-9]`).Draw(t, "user") + text.Draw(t, "name"), App: rapid.SampledFrom([]string{"default", "shop"}).Draw(t, "app"),
			OS: text.Draw(t, "os"), AppVersion: text.Draw(t, "version"), Locale: rapid.SampledFrom([]string{"", "de-CH", "zh-Hant-TW"}).Draw(t, "locale"),
			TimeZone: rapid.SampledFrom([]string{"", "Europe/Zurich"}).Draw(t, "zone"), RegisteredAt: at("registered"), LastSeenAt: at("seen")}
		if rapid.Bool().Draw(t, "installed") {
			d.InstallationID = "i-" + id + text.Draw(t, "installation")
		}
		for _, key := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"plan", "a.b", "c-d"}), rapid.ID).Draw(t, "tags") {
			if d.Tags == nil {
				d.Tags = map[string]string{}
			}
			d.Tags[key] = text.Draw(t, key)
		}
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			d.Channel, d.Token = "fcm", id
		case 1:
			d.Channel, d.FID = "fcm", id[:22]
		case 2:
			d.Channel, d.Token = "apns", id
			d.Environment = rapid.SampledFrom([]string{"production", "sandbox", "auto"}).Draw(t, "environment")
			d.Purpose = rapid.SampledFrom([]string{"alert", "voip", "push_to_start", "activity", "widget"}).Draw(t, "purpose")
			if d.Purpose == "activity" {
				d.ActivityID, d.ExpiresAt = "match-"+id[:4], time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
			}
		default:
			auth := make([]byte, 16)
			_, _ = rand.Read(auth)
			d.Channel = "webpush"
			d.Subscription = &lists.Subscription{Endpoint: pushService + id, Keys: lists.Keys{P256dh: b64(p256dh.PublicKey().Bytes()), Auth: b64(auth)}}
			if d.App == "default" && rapid.Bool().Draw(t, "bound") {
				d.Subscription.VAPIDKey = pushKey
			}
			if rapid.Bool().Draw(t, "expires") {
				ms := float64(time.Now().Add(time.Hour).UnixMilli())
				d.Subscription.ExpirationTime = &ms
			}
		}
		return d
	}), 10, 60).Example(seed)
}

// listIn reads a list, without the ids of its devices.
func listIn(t *testing.T, file string, format lists.Format) (out []lists.Device) {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	r, err := lists.NewReader(f, lists.Options{Format: format})
	require.NoError(t, err)
	for {
		e, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		require.NotEmpty(t, e.Device.ID)
		e.Device.ID = ""
		out = append(out, e.Device)
	}
}

// TestAnExportIsImportedAsItWas: whatever is registered, in both formats, from one tenant into
// another that is empty.
func TestAnExportIsImportedAsItWas(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	sample, err := k.sim.Push().NewSubscription(k.pushKey)
	require.NoError(t, err)
	pushService := sample.Endpoint[:strings.LastIndex(sample.Endpoint, "/")+1]
	vapid, err := ecdh.P256().GenerateKey(rand.Reader)
	require.NoError(t, err)
	b64 := base64.RawURLEncoding.EncodeToString
	pair := map[string]any{"private_key": b64(vapid.Bytes()), "public_key": b64(vapid.PublicKey().Bytes()), "subject": "mailto:ops@example.com"}
	n := 0
	newTenant := func() (key string) {
		n++
		name := fmt.Sprint("tenant-", n)
		k.must("tenant", "create", name)
		key = k.must("key", "create", "--tenant", name, "--scopes", "admin")
		x := client{base: k.server.url, key: key, http: k.api.http}
		require.NoError(t, x.call(t.Context(), http.MethodPut, "/v1/apps/default/credentials/webpush", pair, nil))
		return key
	}
	for seed := range 8 {
		given := drawnDevices(t, seed, pushService, b64(vapid.PublicKey().Bytes()))
		format := []lists.Format{lists.NDJSON, lists.CSV}[seed%2]
		from, to := newTenant(), newTenant()
		list, first, second := filepath.Join(k.dir, fmt.Sprint("given-", n)), filepath.Join(k.dir, fmt.Sprint("first-", n)), filepath.Join(k.dir, fmt.Sprint("second-", n))
		var b bytes.Buffer
		w, err := lists.NewWriter(&b, lists.NDJSON)
		require.NoError(t, err)
		last := map[string]int{} // by address: of two with one address the last counts
		for i, d := range given {
			require.NoError(t, w.Write(d))
			address := d.Token + d.FID
			if d.Subscription != nil {
				address = d.Subscription.Endpoint
			}
			last[d.App+" "+d.Channel+" "+address] = i
		}
		require.NoError(t, w.Flush())
		require.NoError(t, os.WriteFile(list, b.Bytes(), 0o600))
		k.must("devices", "import", list, "--format", "ndjson", "--key", from)
		k.must("devices", "export", first, "--format", string(format), "--key", from)
		k.must("devices", "import", first, "--format", string(format), "--key", to)
		k.must("devices", "export", second, "--format", string(format), "--key", to)
		got := listIn(t, first, format)
		require.Equal(t, got, listIn(t, second, format))
		require.Len(t, got, len(last))
		for i, d := range got {
			if len(last) == len(given) {
				require.Equal(t, given[i], d)
			}
		}
	}
}

// TestDevicesExport over a server: who may, pages, filters, and files.
func TestDevicesExport(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	const n = 2100 // three pages
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"user":"u%d","app":%q,"channel":"fcm","token":"t%d"}`+"\n", i, []string{"default", "shop"}[i%2], i)
	}
	list, file := filepath.Join(k.dir, "list.ndjson"), filepath.Join(k.dir, "export.ndjson")
	require.NoError(t, os.WriteFile(list, []byte(b.String()), 0o600))
	k.must("devices", "import", list)
	k.must("devices", "export", file)
	require.Len(t, listIn(t, file, lists.NDJSON), n)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.NoFileExists(t, file+partSuffix)

	out := k.must("devices", "export", "-", "--format", "csv", "--app", "shop", "--channel", "fcm", "--status", "active")
	require.Equal(t, n/2, strings.Count(out, "\n"), "and a line of names, of which the last has no end here")
	rows := strings.Split(out, "\n")
	id, _, _ := strings.Cut(rows[n/2-5], ",")
	out = k.must("devices", "export", "-", "--format", "csv", "--app", "shop", "--after", id)
	require.Equal(t, rows[n/2-4:], strings.Split(out, "\n")[1:])

	k.must("tenant", "create", "other")
	other := k.must("key", "create", "--tenant", "other", "--scopes", "admin")
	require.Empty(t, k.must("devices", "export", "-", "--format", "ndjson", "--key", other))
	k.must("devices", "export", "-", "--format", "ndjson", "--key", other, "--after", id)
	mine := k.must("key", "create", "--tenant", "acme", "--scopes", "send,devices,read,webhooks,erase")
	code, out, errs := k.command("devices", "export", "-", "--format", "ndjson", "--key", mine)
	require.Equal(t, exitFailed, code)
	require.Empty(t, out)
	require.Contains(t, errs, `lacks the scope "admin"`)

	require.NoError(t, os.WriteFile(file+partSuffix, nil, 0o600))
	code, _, errs = k.command("devices", "export", file)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "of an export that ended early")
	code, _, errs = k.command("devices", "export", "-")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "give --format")
	code, _, errs = k.command("devices", "export", "-", "--format", "csv", "--after", "x")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "after: is not the id of a device")
}

// TestAnExportGoesOn after cuts within a line, what the server has no time for, and answers that a proxy has taken
// the trailer of; and it says where it stopped when that does not help.
func TestAnExportGoesOn(t *testing.T) {
	t.Parallel()
	line := func(n int) string {
		return fmt.Sprintf(`{"id":"dev_%d","user":"u","token":"t","new":"member"}`+"\n", n)
	}
	var mu sync.Mutex
	var asked []string
	var calls, ends atomic.Int32
	ends.Store(6)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Query().Get("after"))
		mu.Unlock()
		switch n := calls.Add(1); {
		case n == 1:
			w.Header().Set("Trailer", "Carillon-Complete")
			_, _ = io.WriteString(w, line(1)+line(2)+line(3)[:20])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case n == 2:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"status":503,"code":"unavailable","detail":"later"}`)
		case n == 3:
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"status":429,"code":"throttled","detail":"later"}`)
		case n == 4:
			_, _ = io.WriteString(w, line(3)+line(4)[:9]) // as a proxy ends it that does not know better
		case n < ends.Load():
			_, _ = io.WriteString(w, line(4))
		case n == ends.Load():
			w.Header().Set("Carillon-Complete", "true")
		default:
			_ = http.NewResponseController(w).Flush() // else the client asks again by itself
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "x.ndjson")
	exported := func() (string, error) {
		var out, errs bytes.Buffer
		c := &cli{streams: streams{in: strings.NewReader(""), out: &out, err: &errs}}
		mu.Lock()
		asked = nil
		mu.Unlock()
		err := c.exportDevices(t.Context(), &clientFlags{url: server.URL, key: "crl_key"},
			exportOrder{file: file, format: lists.NDJSON, query: url.Values{}, pause: time.Nanosecond})
		return errs.String(), err
	}
	said, err := exported()
	require.NoError(t, err)
	require.Contains(t, said, "exported 4 devices")
	require.Equal(t, []string{"", "dev_2", "dev_2", "dev_2", "dev_3", "dev_4"}, asked)
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, line(1)+line(2)+line(3)+line(4), string(b))

	_, err = exported()
	require.Error(t, err)
	require.Len(t, asked, exportTries)
	require.NoFileExists(t, file+partSuffix, "nothing came")

	calls.Store(3)
	ends.Store(0)
	_, err = exported()
	require.ErrorContains(t, err, "1 devices are in "+file+partSuffix)
	require.ErrorContains(t, err, "go on in another file with --after dev_3")
	require.FileExists(t, file+partSuffix)
	b, err = os.ReadFile(file)
	require.NoError(t, err)
	require.Len(t, b, 4*len(line(1)), "what is whole stays")
}
