package channeltest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

const notification = ids.ID(1 << 40)

// life is the first attempt of the nth delivery.
func life(h Harness, n int) channels.Life {
	return channels.Life{
		Delivery:     ids.FormatDelivery(notification, ids.ID(n+1)),
		Notification: notification.Format(ids.Notification),
		UUID:         fmt.Sprintf("123e4567-e89b-42d3-a456-%012x", n),
		Attempt:      1,
		ExpiresAt:    h.Now().Add(time.Hour),
	}
}

func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// open opens the channel at p and ends all of it with the test.
func open(t testing.TB, h Harness, p *Provider) Setup {
	s := h.Open(t, p)
	t.Cleanup(func() { finish(s) })
	return s
}

func finish(s Setup) {
	s.Sender.Close()
	if s.Close != nil {
		s.Close()
	}
}

func prepare(t testing.TB, h Harness, s Setup) channels.Payload {
	p, err := s.Channel.Prepare(h.Message)
	require.NoError(t, err)
	return p
}

// answer is a handler that always gives the answer of c.
func answer(c Case) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range c.Header {
			w.Header()[http.CanonicalHeaderKey(k)] = v
		}
		w.WriteHeader(c.Status)
		_, _ = io.WriteString(w, c.Body)
	}
}

func runAnswers(t *testing.T, h Harness) {
	ok := h.OK
	ok.Name = "accepted"
	for _, c := range append([]Case{ok}, h.Cases...) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			p := serve(t, h.HTTP1, answer(c))
			s := open(t, h, p)
			payload := prepare(t, h, s)
			target, l := s.Target, life(h, 0)
			if c.Target != nil {
				c.Target(&target)
			}
			if c.Life != nil {
				c.Life(&l)
			}
			before := h.Now()
			r := s.Sender.Send(patient(t), target, payload, l)
			check(t, h, c, r, before)
			require.Len(t, p.Requests(), 1, "one Send is one request")
			if c.Again == nil {
				return
			}
			require.NotEqual(t, channels.RenewNothing, r.Renew, "Again is about a renewal")
			l.Renewed, l.Attempt = r.Renew, l.Attempt+1
			again := c
			again.Want = *c.Again
			before = h.Now()
			check(t, h, again, s.Sender.Send(patient(t), target, payload, l), before)
			require.Len(t, p.Requests(), 2, "one Send is one request")
		})
	}
}

func runProbes(t *testing.T, h Harness) {
	for _, c := range h.Probes {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			s := open(t, h, serve(t, h.HTTP1, answer(c)))
			before := h.Now()
			check(t, h, c, s.Sender.Probe(patient(t)), before)
		})
	}
}

// check compares a verdict with what a case wants.
func check(t testing.TB, h Harness, c Case, got channels.Result, before time.Time) {
	t.Helper()
	wellFormed(t, h, got)
	want := c.Want
	if want.Status == 0 {
		want.Status = c.Status
	}
	if want.Code == "" {
		want.Code = got.Code
	}
	if want.ProviderID == "" {
		want.ProviderID = got.ProviderID
	}
	if c.After == 0 {
		require.Zero(t, got.NotBefore, "the answer names no time")
	} else { // Retry-After counts whole seconds
		require.False(t, got.NotBefore.Before(before.Add(c.After-time.Second)), "NotBefore %v", got.NotBefore)
		require.False(t, got.NotBefore.After(h.Now().Add(c.After+time.Second)), "NotBefore %v", got.NotBefore)
	}
	want.Detail, want.NotBefore = got.Detail, got.NotBefore
	require.Equal(t, want, got)
}

// wellFormed checks what holds for every verdict.
func wellFormed(t testing.TB, h Harness, r channels.Result) {
	t.Helper()
	require.NotZero(t, r.Outcome)
	require.NotEqual(t, channels.Unknown, r.Outcome, "only the engine says unknown")
	require.Regexp(t, `^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$`, r.Code)
	require.LessOrEqual(t, len(r.Detail), 256)
	require.Less(t, len(r.ProviderID), 512)
	for _, secret := range h.Secrets {
		require.NotContains(t, r.Detail, secret)
		require.NotContains(t, r.Code, secret)
	}
	if r.Renew != channels.RenewNothing {
		require.Contains(t, []channels.Outcome{channels.Retry, channels.Throttled}, r.Outcome, "a renewal means another attempt")
	}
	if r.Doubtful || r.Resubscribe {
		require.Equal(t, channels.Gone, r.Outcome)
	}
}

// runSecrets answers with everything that a provider could echo.
func runSecrets(t *testing.T, h Harness) {
	for _, status := range []int{302, 400, 401, 403, 404, 405, 410, 413, 418, 429, 500, 502, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			var echoed atomic.Pointer[[]string]
			p := serve(t, h.HTTP1, func(w http.ResponseWriter, _ *http.Request) {
				all := strings.Join(*echoed.Load(), " ")
				if status == http.StatusFound {
					w.Header().Set("Location", "https://example.invalid/?"+url.QueryEscape(all))
				}
				w.WriteHeader(status)
				_, _ = fmt.Fprintf(w, `{"error":{"code":%d,"message":%q,"status":%q},"reason":%q,"message":%q}`, status, all, all, all, all)
			})
			s := open(t, h, p)
			with := h
			with.Secrets = append([]string{s.Target.Address}, h.Secrets...)
			echoed.Store(&with.Secrets)
			wellFormed(t, with, s.Sender.Send(patient(t), s.Target, prepare(t, h, s), life(h, 0)))
			require.Len(t, p.Requests(), 1)
			wellFormed(t, with, s.Sender.Probe(patient(t)))
			for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
				printed := fmt.Sprintf(verb+verb, s.Credential, s.Target)
				for _, secret := range with.Secrets {
					require.NotContains(t, printed, secret)
				}
			}
		})
	}
}
