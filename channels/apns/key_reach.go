package apns

import (
	"context"
	"sync"
	"time"

	"github.com/sideshow/apns2"

	"github.com/carillonhq/carillon/channels"
)

// reachFor is how long a refusal by a gateway is remembered: Apple lets a team
// change which environments a key is for.
const reachFor = time.Hour

// keyReach is what a sender has learned of the gateways that take its key.
// Apple's portal can limit a key to one environment, which nobody tells us; the
// other gateway then answers BadEnvironmentKeyIdInToken. That says nothing
// against the key, only that it has no such gateway.
type keyReach struct {
	mu      sync.Mutex
	took    map[channels.Environment]bool
	refused map[channels.Environment]time.Time
	asking  chan struct{} // one asks the other gateway, the rest wait
}

func newKeyReach() *keyReach {
	return &keyReach{took: map[channels.Environment]bool{}, refused: map[channels.Environment]time.Time{}, asking: make(chan struct{}, 1)}
}

// learn notes what an answer of a gateway says about the key.
func (k *keyReach) learn(env channels.Environment, a reply, now time.Time) {
	refused := isEnvironmentRefusal(a.reason)
	if !refused && a.status != apns2.StatusSent && !isAboutDevice(a.reason) {
		return // from a proxy, or about something that is looked at before the key
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.took[env] = !refused
	if refused {
		k.refused[env] = now
	} else {
		delete(k.refused, env)
	}
}

func (k *keyReach) takes(env channels.Environment) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.took[env]
}

func (k *keyReach) refuses(env channels.Environment, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	at, refused := k.refused[env]
	return refused && now.Sub(at) < reachFor
}

// lacks tells that the key is for the other gateway only.
func (k *keyReach) lacks(env channels.Environment, now time.Time) bool {
	return k.refuses(env, now) && k.takes(opposite(env))
}

func opposite(env channels.Environment) channels.Environment {
	if env == channels.Production {
		return channels.Sandbox
	}
	return channels.Production
}

// otherGateway is what is known of the gateway that did not answer.
type otherGateway uint8

const (
	otherNone    otherGateway = iota // the credential has none, or it does not take the key either
	otherUnknown                     // it could not be asked
	otherTakes
)

// askOther finds out whether the key, which env has just refused, is good for
// the other gateway. Where no answer has told yet, it asks with a request that
// reaches nobody, once for all who want to know.
func (s *sender) askOther(ctx context.Context, env channels.Environment) otherGateway {
	other := opposite(env)
	if s.gateways[other] == nil {
		return otherNone
	}
	if got := s.reachOf(other); got != otherUnknown {
		return got
	}
	select {
	case s.reach.asking <- struct{}{}:
		defer func() { <-s.reach.asking }()
	case <-ctx.Done():
		return otherUnknown
	}
	if got := s.reachOf(other); got != otherUnknown {
		return got
	}
	if r := s.probe(ctx, other, channels.RenewNothing); r.Outcome == channels.Denied {
		return otherNone
	}
	return s.reachOf(other)
}

func (s *sender) reachOf(env channels.Environment) otherGateway {
	switch {
	case s.reach.takes(env):
		return otherTakes
	case s.reach.refuses(env, s.channel.now()):
		return otherNone
	}
	return otherUnknown
}

func isEnvironmentRefusal(reason string) bool {
	return reason == reasonEnvKeyID || reason == reasonEnvKey
}

func isAboutDevice(reason string) bool {
	return reason == apns2.ReasonBadDeviceToken || reason == apns2.ReasonDeviceTokenNotForTopic ||
		reason == apns2.ReasonUnregistered || reason == apns2.ReasonExpiredToken
}
