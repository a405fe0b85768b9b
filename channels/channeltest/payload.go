package channeltest

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"sort"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

// many is how many sends share one payload.
const many = 64

// runPayload sends one payload to many deliveries at once: each request arrives
// once, whole, and as Preview shows it.
func runPayload(t *testing.T, h Harness) {
	p := serve(t, h.HTTP1, answer(h.OK))
	s := open(t, h, p)
	m := h.Message
	m.Data = bytes.Clone(m.Data)
	payload, err := s.Channel.Prepare(m)
	require.NoError(t, err)
	size := payload.Size()
	require.Positive(t, size)

	first := payload.Preview(life(h, 0).Delivery)
	kept := bytes.Clone(first)
	clear(first)  // what Preview returned is the caller's
	clear(m.Data) // and what Prepare was given too
	require.JSONEq(t, string(kept), string(payload.Preview(life(h, 0).Delivery)))

	var wg sync.WaitGroup
	results := make([]channels.Result, many)
	ctx := patient(t)
	for n := range many {
		wg.Go(func() { results[n] = s.Sender.Send(ctx, s.Target, payload, life(h, n)) })
	}
	wg.Wait()
	var want, got []string
	for n, r := range results {
		require.Equal(t, channels.Accepted, r.Outcome, "%+v", r)
		want = append(want, canonical(t, payload.Preview(life(h, n).Delivery)))
	}
	for _, r := range p.Requests() {
		got = append(got, canonical(t, h.Payload(t, r)))
	}
	sort.Strings(want)
	sort.Strings(got)
	require.Equal(t, want, got)
	require.Equal(t, size, payload.Size())
	require.JSONEq(t, string(kept), string(payload.Preview(life(h, 0).Delivery)), "sending changed the payload")
}

// canonical sorts keys and keeps numbers as they are.
func canonical(t testing.TB, b []byte) string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	require.NoError(t, d.Decode(&v), "%q", b)
	out, err := json.Marshal(v)
	require.NoError(t, err)
	return string(out)
}

// runChecks tries what needs no network.
func runChecks(t *testing.T, h Harness) {
	s := open(t, h, serve(t, h.HTTP1, answer(h.OK)))

	t.Run("targets", func(t *testing.T) {
		again, err := s.Channel.CheckTarget(s.Target)
		require.NoError(t, err)
		require.Equal(t, s.Target, again, "the canonical form is its own canonical form")
		_, err = s.Channel.CheckTarget(channels.Target{})
		require.NotEmpty(t, refusal(t, err).Fields)
		for field, target := range h.BadTargets {
			_, err := s.Channel.CheckTarget(target)
			require.Contains(t, paths(t, err), field)
			if len(target.Address) > 8 {
				require.NotContains(t, err.Error(), target.Address)
			}
		}
	})

	t.Run("overrides", func(t *testing.T) {
		all := map[string]string{`{"no_such_member":1}`: "no_such_member"}
		maps.Copy(all, h.Overrides)
		for override, path := range all {
			path = "overrides." + s.Channel.Kind().String() + "." + path
			m := h.Message
			m.Override = json.RawMessage(override)
			_, err := s.Channel.Prepare(m)
			require.Error(t, err, override)
			require.Contains(t, paths(t, err), path, override)
		}
		for _, override := range []string{`[]`, `"x"`, `1`, `{`} {
			m := h.Message
			m.Override = json.RawMessage(override)
			_, err := s.Channel.Prepare(m)
			refusal(t, err)
		}
	})

	t.Run("credentials", func(t *testing.T) {
		for _, input := range append([]string{"", "[]", `"x"`, "{"}, h.BadCredentials...) {
			_, err := s.Channel.ParseCredential([]byte(input), nil)
			e := refusal(t, err)
			require.Contains(t, []problem.Code{problem.Malformed, problem.Invalid, problem.CredentialRefused}, e.Code)
			for _, secret := range h.Secrets {
				require.NotContains(t, err.Error(), secret)
			}
		}
		if s.Credential.Settings != nil {
			require.True(t, json.Valid(s.Credential.Settings), "Settings is shown")
		}
		for _, secret := range h.Secrets {
			require.NotContains(t, string(s.Credential.Settings), secret)
		}
	})
}

// refusal is the error that a caller may see.
func refusal(t testing.TB, err error) *problem.Error {
	t.Helper()
	var e *problem.Error
	require.ErrorAs(t, err, &e)
	return e
}

func paths(t testing.TB, err error) []string {
	t.Helper()
	var list []string
	for _, f := range refusal(t, err).Fields {
		list = append(list, f.Path)
	}
	slices.Sort(list)
	return list
}

// runClose closes a sender that has sent: no connection stays open.
func runClose(t *testing.T, h Harness) {
	p := serve(t, h.HTTP1, answer(h.OK))
	s := h.Open(t, p)
	r := s.Sender.Send(patient(t), s.Target, prepare(t, h, s), life(h, 0))
	require.Equal(t, channels.Accepted, r.Outcome, "%+v", r)
	finish(s)
	p.awaitClosed(t)
	finish(s) // twice is harmless
}
