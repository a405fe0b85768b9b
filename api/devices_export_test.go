package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/devices/lists"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func (d *fakeDevices) BeginExport(_ context.Context, _ ids.ID, _ devices.Filter, what, actor string) error {
	d.w.note("export " + what + " by " + actor)
	return d.err
}

func (d *fakeDevices) ExportPage(_ context.Context, tenant ids.ID, f devices.Filter) ([]devices.Device, ids.ID, error) {
	if d.page != nil {
		return d.page(f.After)
	}
	one := aDevice()
	if tenant != tenantA {
		return nil, 0, nil
	}
	one.Target.P256dh, one.Target.Auth = nil, nil
	return []devices.Device{one}, 0, nil
}

func export(query string) request {
	return request{method: "GET", path: "/v1/devices/export" + query, key: keyAdmin}
}

// exported are devices of every kind.
func exported() []devices.Device {
	at := epoch.Add(-time.Hour)
	return []devices.Device{
		{ID: 1, User: "u1", App: "shop", Channel: channels.FCM, Status: devices.Suspect, Reason: "fcm.unregistered", InstallationID: "i", AppVersion: "1.2",
			Locale: "de-CH", TimeZone: "Europe/Zurich", Tags: map[string]string{"plan": "pro"}, LastSeenAt: epoch, Purpose: channels.Alert,
			Target: channels.Target{Kind: channels.FCMToken, Address: "tok", OS: "android", RegisteredAt: at}},
		{ID: 2, User: "u2", App: "default", Channel: channels.FCM, Purpose: channels.Alert, Target: channels.Target{Kind: channels.FCMFid, Address: "fid"}},
		{ID: 3, User: "u3", App: "default", Channel: channels.APNs, Purpose: channels.Activity, ActivityID: "match", ExpiresAt: epoch,
			Target: channels.Target{Kind: channels.APNsToken, Address: "9f", Environment: channels.Sandbox}},
		{ID: 4, User: "u4", App: "default", Channel: channels.WebPush, Purpose: channels.Alert, ExpiresAt: epoch, VAPIDKey: "BP",
			Target: channels.Target{Kind: channels.Subscription, Address: "https://push.example.com/x", P256dh: []byte{4, 255}, Auth: []byte{9}}},
	}
}

func TestAnExportIsAListThatRegistersTheSame(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.devices.page = func(ids.ID) ([]devices.Device, ids.ID, error) { return exported(), 0, nil }
	dev := func(n ids.ID) string { return n.Format(ids.Device) }
	ms := float64(epoch.UnixMilli())
	want := []lists.Device{
		{ID: dev(1), User: "u1", App: "shop", Channel: "fcm", Token: "tok", InstallationID: "i", OS: "android", AppVersion: "1.2", Locale: "de-CH", TimeZone: "Europe/Zurich",
			Tags: map[string]string{"plan": "pro"}, RegisteredAt: epoch.Add(-time.Hour), LastSeenAt: epoch},
		{ID: dev(2), User: "u2", App: "default", Channel: "fcm", FID: "fid"},
		{ID: dev(3), User: "u3", App: "default", Channel: "apns", Token: "9f", Environment: "sandbox", Purpose: "activity", ActivityID: "match", ExpiresAt: epoch},
		{ID: dev(4), User: "u4", App: "default", Channel: "webpush",
			Subscription: &lists.Subscription{Endpoint: "https://push.example.com/x", ExpirationTime: &ms, Keys: lists.Keys{P256dh: "BP8", Auth: "CQ"}, VAPIDKey: "BP"}},
	}
	for format, media := range exportTypes() {
		rec := w.do(t, export("?format="+format))
		require.Equal(t, http.StatusOK, rec.Code, rec.Body.String())
		require.Equal(t, media, rec.Header().Get("Content-Type"))
		require.Equal(t, "true", rec.Header().Get(completeHeader))
		require.Equal(t, strconv.Itoa(rec.Body.Len()), rec.Header().Get("Content-Length"), "a cut can be told from the end")
		r, err := lists.NewReader(rec.Body, lists.Options{Format: lists.Format(format)})
		require.NoError(t, err)
		for _, d := range want {
			e, err := r.Read()
			require.NoError(t, err)
			require.Equal(t, d, e.Device)
		}
		_, err = r.Read()
		require.ErrorIs(t, err, io.EOF)
	}
	actor := theKey.Format(ids.Key)
	require.ElementsMatch(t, []string{"export ndjson by " + actor, "export csv by " + actor}, w.did)
	require.Empty(t, w.exports(), "nothing is left behind")
}

// exports are those that are under way.
func (w *world) exports() map[ids.ID]int {
	w.limits.exports.mu.Lock()
	defer w.limits.exports.mu.Unlock()
	return w.limits.exports.under
}

func TestWhatCannotBeExported(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for query, path := range map[string]string{"?format=xml": "format", "?channel=sms": "channel", "?status=dead": "status", "?after=x": "after",
		"?after=ntf_0000000040005": "after", "?user=u1": "user"} {
		p := problemIn(t, w.do(t, export(query)))
		require.Equal(t, problem.Invalid, p.Code, query)
		require.Equal(t, path, p.Errors[0].Path)
	}
	for accept, code := range map[string]int{"application/json": 406, "text/html, text/csv;q=0": 406, "text/csv": 200, "application/*": 200, "text/*": 200, "*/*": 200} {
		r := export("")
		r.header = map[string]string{"Accept": accept}
		require.Equal(t, code, w.do(t, r).Code, accept)
	}
	w.did = nil
	for _, scope := range tenants.Scopes() {
		if scope != tenants.Admin {
			r := export("")
			r.key = keyWith(scope)
			require.Equal(t, problem.Forbidden, problemIn(t, w.do(t, r)).Code)
		}
	}
	require.Empty(t, w.did)
	other := export("")
	other.key = keyOtherAll
	require.Empty(t, w.do(t, other).Body.String(), "another tenant has its own devices only")

	w.devices.page = func(ids.ID) ([]devices.Device, ids.ID, error) { return nil, 0, errors.New("disk-on-fire") }
	require.Equal(t, problem.Internal, problemIn(t, w.do(t, export(""))).Code, "nothing was sent yet")
	w.devices.err = problem.New(problem.Unavailable, "later")
	require.Equal(t, problem.Unavailable, problemIn(t, w.do(t, export(""))).Code, "what is not in the audit is not given")
	require.Empty(t, w.exports())
}

// pages gives so many pages of one device each; before each but the first it calls wait.
func (w *world) pages(n int, wait func(page int) error) {
	w.devices.page = func(after ids.ID) ([]devices.Device, ids.ID, error) {
		page := int(after) + 1
		if page > 1 {
			if err := wait(page); err != nil {
				return nil, 0, err
			}
		}
		d := exported()[0]
		d.ID = ids.ID(page)
		if page == n {
			return []devices.Device{d}, 0, nil
		}
		return []devices.Device{d}, d.ID, nil
	}
}

// serveByPipe serves over connections in memory, with the deadlines that a server has.
func serveByPipe(t *testing.T, h http.Handler) (dial func() net.Conn) {
	t.Helper()
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return func() net.Conn {
		client, server := net.Pipe()
		l.conns <- server
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
}

type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// ask begins an export; nothing of the answer is read yet.
func ask(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := fmt.Fprintf(c, "GET /v1/devices/export HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", keyAdmin)
	require.NoError(t, err)
}

func answered(t *testing.T, c net.Conn) (*http.Response, string, error) {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}

// TestALongExport: it may take longer than a request that is answered at once, and the connection
// can be used again.
func TestALongExport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t)
		w.pages(5, func(int) error { time.Sleep(40 * time.Second); return nil })
		c := serveByPipe(t, w)()
		for range 2 {
			ask(t, c)
			res, body, err := answered(t, c)
			require.NoError(t, err)
			require.Equal(t, 5, strings.Count(body, "\n"))
			require.Equal(t, []string{"chunked"}, res.TransferEncoding)
			require.Empty(t, res.Header.Get(completeHeader))
			require.Equal(t, "true", res.Trailer.Get(completeHeader))
		}
		_ = c.Close()
	})
}

// TestAnExportThatCannotGoOnIsCut: its reader does not take it for a whole one.
func TestAnExportThatCannotGoOnIsCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t)
		w.pages(5, func(page int) error {
			if page == 3 {
				return errors.New("disk-on-fire")
			}
			return nil
		})
		c := serveByPipe(t, w)()
		ask(t, c)
		res, body, err := answered(t, c)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.Equal(t, 2, strings.Count(body, "\n"))
		require.Empty(t, res.Trailer.Get(completeHeader))
		synctest.Wait()
		require.Empty(t, w.exports())
		require.Contains(t, w.log.String(), "an export of devices was cut")
	})
}

// TestAClientThatDoesNotRead: it has no place among the reads of its tenant, and is cut off.
func TestAClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t)
		w.pages(5, func(int) error { return nil })
		dial := serveByPipe(t, w)
		slow := []net.Conn{dial(), dial()}
		for _, c := range slow {
			ask(t, c)
		}
		synctest.Wait()
		require.Equal(t, map[ids.ID]int{tenantA: exportsAtOnce}, w.exports())
		w.limits.reads.mu.Lock()
		require.Empty(t, w.limits.reads.places)
		w.limits.reads.mu.Unlock()

		third := dial()
		ask(t, third)
		res, _, err := answered(t, third)
		require.NoError(t, err)
		require.Equal(t, http.StatusTooManyRequests, res.StatusCode)
		require.Equal(t, "10", res.Header.Get("Retry-After"))

		began := time.Now()
		_, err = io.Copy(io.Discard, slow[0])
		require.NoError(t, err)
		time.Sleep(exportWait + time.Second)
		synctest.Wait()
		require.Empty(t, w.exports(), "the one that read is done, the other cut off after %s", time.Since(began))
		third = dial() // the other has waited for too long
		ask(t, third)
		_, _, err = answered(t, third)
		require.NoError(t, err)
		for _, c := range append(slow, third) {
			_ = c.Close()
		}
	})
}

// TestAnExportTakesOnePageOfMemory however long it is.
func TestAnExportTakesOnePageOfMemory(t *testing.T) { //nolint:paralleltest // others would use memory meanwhile
	const pages, most = 60, 4 << 20
	w := setup(t)
	page := make([]devices.Device, 200)
	var before, highest uint64
	w.devices.page = func(after ids.ID) ([]devices.Device, ids.ID, error) {
		if after%20 == 0 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			if before == 0 {
				before = m.HeapAlloc
			}
			highest = max(highest, m.HeapAlloc)
		}
		for i := range page {
			page[i] = exported()[0]
			page[i].Target.Address = strings.Repeat("x", 2000)
		}
		if after+1 == pages {
			return page, 0, nil
		}
		return page, after + 1, nil
	}
	nowhere := &discarded{header: http.Header{}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/devices/export", http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+keyAdmin)
	w.ServeHTTP(nowhere, req)
	require.Equal(t, "true", nowhere.header.Get(completeHeader))
	require.Greater(t, nowhere.n, pages*len(page)*2000)
	require.Less(t, highest, before+most, "of %d bytes", nowhere.n)
}

type discarded struct {
	header http.Header
	n      int
}

func (d *discarded) Header() http.Header         { return d.header }
func (d *discarded) WriteHeader(int)             {}
func (d *discarded) Flush()                      {}
func (d *discarded) Write(p []byte) (int, error) { d.n += len(p); return len(p), nil }
