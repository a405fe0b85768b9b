package apns

import (
	"context"
	"crypto/x509"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
)

const wrongEnvironment = `{"reason":"BadEnvironmentKeyIdInToken"}`

// limited is a sender for both environments whose key Apple may have limited.
type limited struct {
	channels.Sender
	production, sandbox *fakeAPNs
	clock               *clock
}

func openLimited(t testing.TB, production, sandbox http.HandlerFunc) limited {
	l := limited{production: serve(t, production), sandbox: serve(t, sandbox), clock: newClock()}
	pool := x509.NewCertPool()
	pool.AddCert(l.production.Certificate())
	pool.AddCert(l.sandbox.Certificate())
	_, l.Sender = open(t, Options{ProductionURL: l.production.URL, SandboxURL: l.sandbox.URL, RootCAs: pool, Now: l.clock.now}, "")
	return l
}

// sendTo sends to a device of an environment, after the renewal that the
// attempt before asked for.
func (l limited) sendTo(t testing.TB, env channels.Environment, renewed channels.Renewal) channels.Result {
	target, attempt := device(), life()
	target.Environment, attempt.Renewed, attempt.ExpiresAt = env, renewed, l.clock.now().Add(time.Hour)
	return l.Send(context.Background(), target, hello(t), attempt)
}

// TestAKeyOfProductionJudgesDevicesThere: the sandbox's refusal of the key is no
// reason to doubt it.
func TestAKeyOfProductionJudgesDevicesThere(t *testing.T) {
	t.Parallel()
	l := openLimited(t, answer(400, `{"reason":"BadDeviceToken"}`), answer(403, wrongEnvironment))
	r := l.sendTo(t, channels.Auto, channels.RenewNothing)
	require.Equal(t, channels.RenewGateway, r.Renew, "%+v", r)
	r = l.sendTo(t, channels.Auto, r.Renew)
	require.Equal(t, channels.Gone, r.Outcome, "%+v", r)
	require.True(t, r.Doubtful)
	require.Equal(t, "apns.bad_device_token", r.Code)

	r = l.sendTo(t, channels.Auto, channels.RenewNothing)
	require.Equal(t, channels.Gone, r.Outcome, "the sandbox is not tried again")
	require.Len(t, l.sandbox.seen(), 1)
	r = l.sendTo(t, channels.Sandbox, channels.RenewNothing)
	require.Equal(t, "apns.environment_mismatch", r.Code)
	require.Equal(t, channels.Rejected, r.Outcome)
	require.Len(t, l.sandbox.seen(), 1)
	probed := l.Probe(context.Background())
	require.Equal(t, channels.Accepted, probed.Outcome)
	require.Equal(t, "APNs takes the credential at production; sandbox does not (apns.bad_environment_key_id_in_token).", probed.Detail)
	require.Len(t, l.sandbox.seen(), 2)

	l.clock.add(reachFor)
	l.sendTo(t, channels.Sandbox, channels.RenewNothing)
	require.Len(t, l.sandbox.seen(), 3, "a key may be given another environment")
}

func TestAKeyOfTheSandboxReachesDevicesThere(t *testing.T) {
	t.Parallel()
	l := openLimited(t, answer(403, `{"reason":"BadEnvironmentKeyInToken"}`), answer(200, ""))
	r := l.sendTo(t, channels.Auto, channels.RenewNothing)
	require.Equal(t, channels.Retry, r.Outcome, "%+v", r)
	require.Equal(t, channels.RenewGateway, r.Renew)
	r = l.sendTo(t, channels.Auto, r.Renew)
	require.Equal(t, channels.Accepted, r.Outcome, "%+v", r)
	require.Equal(t, channels.Sandbox, r.Environment)
	require.Equal(t, channels.Accepted, l.sendTo(t, channels.Auto, channels.RenewNothing).Outcome)
	require.Len(t, l.production.seen(), 1)
	require.Equal(t, "apns.environment_mismatch", l.sendTo(t, channels.Production, channels.RenewNothing).Code)
	require.Equal(t, channels.Accepted, l.Probe(context.Background()).Outcome)
}

// TestADeviceOfTheOtherEnvironmentAsksOnce: nothing is known yet of the gateway
// that takes the key.
func TestADeviceOfTheOtherEnvironmentAsksOnce(t *testing.T) {
	t.Parallel()
	l := openLimited(t, answer(400, `{"reason":"BadDeviceToken"}`), answer(403, wrongEnvironment))
	var all sync.WaitGroup
	var mismatches atomic.Int32
	for range 8 {
		all.Go(func() {
			if r := l.sendTo(t, channels.Sandbox, channels.RenewNothing); r.Code == "apns.environment_mismatch" {
				mismatches.Add(1)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 8, mismatches.Load())
	require.Len(t, l.production.seen(), 1)
}

// TestAKeyThatNoGatewayTakesIsDenied, whichever is asked first.
func TestAKeyThatNoGatewayTakesIsDenied(t *testing.T) {
	t.Parallel()
	l := openLimited(t, answer(403, wrongEnvironment), answer(403, wrongEnvironment))
	for _, env := range []channels.Environment{channels.Production, channels.Sandbox, channels.Auto} {
		r := l.sendTo(t, env, channels.RenewNothing)
		require.Equal(t, channels.Denied, r.Outcome, "%s %+v", env, r)
		require.Equal(t, channels.ScopeCredential, r.Scope)
	}
	require.Equal(t, "apns.bad_environment_key_id_in_token", l.Probe(context.Background()).Code)

	revoked := openLimited(t, answer(403, `{"reason":"InvalidProviderToken"}`), answer(403, wrongEnvironment))
	require.Equal(t, channels.Denied, revoked.sendTo(t, channels.Sandbox, channels.RenewNothing).Outcome)
	require.Equal(t, "apns.invalid_provider_token", revoked.Probe(context.Background()).Code)
}

// TestAGatewayThatCannotBeAskedDecidesNothing.
func TestAGatewayThatCannotBeAskedDecidesNothing(t *testing.T) {
	t.Parallel()
	l := openLimited(t, answer(503, `{"reason":"ServiceUnavailable"}`), answer(403, wrongEnvironment))
	r := l.sendTo(t, channels.Sandbox, channels.RenewNothing)
	require.Equal(t, channels.Retry, r.Outcome, "%+v", r)
	require.Positive(t, r.Floor)
	require.Equal(t, channels.Retry, l.Probe(context.Background()).Outcome)

	single := serve(t, answer(403, wrongEnvironment))
	_, s := open(t, Options{ProductionURL: single.URL, RootCAs: single.pool()}, "production")
	require.Equal(t, channels.Denied, send(t, s).Outcome, "the tenant said that the key is for this one")
}
