package webhook

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/egress"
)

var noon = time.Unix(1_700_000_000, 0)

// answerRow is one answer of a receiver and the verdict on it.
type answerRow struct {
	status int
	after  string
	want   channels.Outcome
	code   string
	wait   time.Duration
}

// dated is how far ahead of noon the table's date lies.
const dated = time.Hour

func answers() []answerRow {
	return []answerRow{
		{200, "", channels.Accepted, "webhook.accepted", 0},
		{202, "60", channels.Accepted, "webhook.accepted", 0},
		{299, "", channels.Accepted, "webhook.accepted", 0},
		{300, "", channels.Retry, "webhook.redirect", 0},
		{301, "60", channels.Retry, "webhook.redirect", time.Minute},
		{304, "", channels.Retry, "webhook.redirect", 0},
		{308, "", channels.Retry, "webhook.redirect", 0},
		{400, "", channels.Retry, "webhook.client_error", 0},
		{401, "", channels.Retry, "webhook.client_error", 0},
		{403, "", channels.Retry, "webhook.client_error", 0},
		{404, "", channels.Retry, "webhook.client_error", 0},
		{408, "", channels.Retry, "webhook.client_error", 0},
		{410, "60", channels.Gone, "webhook.gone", 0},
		{413, "", channels.Retry, "webhook.client_error", 0},
		{422, "", channels.Retry, "webhook.client_error", 0},
		{425, "5", channels.Retry, "webhook.client_error", 5 * time.Second},
		{429, "", channels.Throttled, "webhook.throttled", 0},
		{429, "120", channels.Throttled, "webhook.throttled", 2 * time.Minute},
		{429, "tomorrow", channels.Throttled, "webhook.throttled", 0},
		{500, "", channels.Retry, "webhook.server_error", 0},
		{501, "", channels.Retry, "webhook.server_error", 0},
		{502, "", channels.Retry, "webhook.unavailable", 0},
		{502, "30", channels.Throttled, "webhook.unavailable", 30 * time.Second},
		{503, "", channels.Retry, "webhook.unavailable", 0},
		{503, "30", channels.Throttled, "webhook.unavailable", 30 * time.Second},
		{504, "", channels.Retry, "webhook.unavailable", 0},
		{504, noon.Add(dated).UTC().Format(http.TimeFormat), channels.Throttled, "webhook.unavailable", dated},
		{599, "", channels.Retry, "webhook.server_error", 0},
		{600, "", channels.Retry, "webhook.unexpected_status", 0},
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	for _, c := range answers() {
		header := http.Header{}
		if c.after != "" {
			header.Set("Retry-After", c.after)
		}
		got := classify(context.Background(), egress.Answer{Status: c.status, Header: header, Body: []byte("secret-x"), Wrote: true}, noon)
		require.NotContains(t, got.Detail, "secret-x")
		require.Contains(t, got.Detail, "The receiver answered ")
		require.LessOrEqual(t, len(got.Detail), 256)
		want := channels.Result{Outcome: c.want, Code: c.code, Status: c.status, Scope: channels.ScopeTarget, Detail: got.Detail}
		if c.wait > 0 {
			want.NotBefore = noon.Add(c.wait)
		}
		require.Equal(t, want, got, "%d %s", c.status, c.after)
	}
}

func TestClassifyTransport(t *testing.T) {
	t.Parallel()
	stopping, stop := context.WithCancelCause(context.Background())
	stop(channels.ErrStopping)
	for name, c := range map[string]struct {
		ctx   context.Context
		err   error
		wrote bool
		want  channels.Result
	}{
		"refused by the guard": {context.Background(), &net.OpError{Op: "dial", Err: egress.ErrRefused}, false,
			channels.Result{Outcome: channels.Rejected, Code: "webhook.refused_address"}},
		"no such name": {context.Background(), &net.DNSError{IsNotFound: true}, false,
			channels.Result{Outcome: channels.Retry, Code: "transport.dns_not_found", Unreached: true}},
		"no answer": {context.Background(), context.DeadlineExceeded, true,
			channels.Result{Outcome: channels.Retry, Code: "transport.timeout", Ambiguous: true}},
		"anything": {context.Background(), errors.New("secret"), false,
			channels.Result{Outcome: channels.Retry, Code: "transport.failed"}},
		"we stop": {stopping, context.Canceled, true,
			channels.Result{Outcome: channels.Interrupted, Code: "stopping", Ambiguous: true}},
	} {
		got := classify(c.ctx, egress.Answer{Err: &url.Error{Op: "Post", URL: "https://example.com/secret", Err: c.err}, Wrote: c.wrote}, noon)
		require.NotContains(t, got.Detail, "secret", name)
		got.Detail = ""
		require.Equal(t, c.want, got, name)
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(200, "")
	f.Add(503, "120")
	f.Add(-1, "Wed, 21 Oct 2099 07:28:00 GMT")
	f.Fuzz(func(t *testing.T, status int, after string) {
		r := classify(context.Background(), egress.Answer{Status: status, Header: http.Header{"Retry-After": {after}}}, noon)
		accepted := status >= 200 && status <= 299
		if accepted != (r.Outcome == channels.Accepted) || r.Code == "" || len(r.Detail) > 256 ||
			r.NotBefore.After(noon.Add(channels.MaxRetryAfter)) || r.Outcome == channels.Rejected || r.Outcome == channels.Denied {
			t.Fatalf("%d %q: %+v", status, after, r)
		}
	})
}
