package apns

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/sideshow/apns2"

	"github.com/carillonhq/carillon/channels"
)

// sender sends with one credential version.
type sender struct {
	channel  *Channel
	signer   *signer   // nil: a certificate is presented instead
	until    time.Time // the end of the certificate; zero for a key
	topic    string    // where a message names none
	gateways map[channels.Environment]*gateway
	reach    *keyReach
	closing  sync.Once
}

// Send makes one request. A device whose environment is unknown is tried in
// production; if that does not know it, the Result asks for RenewGateway, and
// the attempt that follows goes to the sandbox. A gateway that does not take the
// key is left out from then on.
func (s *sender) Send(ctx context.Context, t channels.Target, p channels.Payload, life channels.Life) channels.Result {
	body, ok := p.(*payload)
	if !ok {
		return channels.Result{Outcome: channels.Rejected, Code: "apns.foreign_payload", Detail: "The payload was prepared for another channel."}
	}
	env, other, ok := s.route(t.Environment, life.Renewed)
	if !ok {
		return channels.Result{Outcome: channels.Rejected, Code: "apns.environment_mismatch",
			Detail: "The device and the credential belong to different environments."}
	}
	n := &apns2.Notification{
		ApnsID:      life.UUID,
		CollapseID:  body.collapseID,
		DeviceToken: t.Address,
		Topic:       body.topicFor(s.topic),
		Priority:    body.priority,
		PushType:    body.pushType,
	}
	remaining := life.Remaining(s.channel.now())
	if remaining > 0 {
		n.Expiration = life.ExpiresAt
	}
	x := &exchange{payload: body.bytes(life.Delivery), noStore: remaining == 0}
	return s.exchange(ctx, env, n, x, circumstances{
		renewed: life.Renewed, registeredAt: t.RegisteredAt, tryOther: other, ownTopic: n.Topic != s.topic,
		auto: t.Environment != channels.Production && t.Environment != channels.Sandbox, fallible: true,
	})
}

// route chooses the gateway. other tells that the sandbox is still to be tried.
func (s *sender) route(env channels.Environment, renewed channels.Renewal) (to channels.Environment, other, ok bool) {
	now := s.channel.now()
	switch {
	case env == channels.Production || env == channels.Sandbox:
		return env, false, s.gateways[env] != nil && !s.reach.lacks(env, now)
	case len(s.gateways) == 1:
		for to = range s.gateways {
		}
	case s.reach.lacks(channels.Sandbox, now):
		to = channels.Production
	case renewed == channels.RenewGateway, s.reach.lacks(channels.Production, now):
		to = channels.Sandbox
	default:
		to, other = channels.Production, true
	}
	return to, other, s.gateways[to] != nil
}

// exchange sends and gives the verdict.
func (s *sender) exchange(ctx context.Context, env channels.Environment, n *apns2.Notification, x *exchange, c circumstances) channels.Result {
	if _, set := ctx.Deadline(); !set {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, sendTimeout)
		defer cancel()
	}
	c.certificate = s.signer == nil
	if c.certificate && !s.channel.now().Before(s.until) {
		return channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential, Code: "apns.certificate_expired",
			Detail: "The certificate has expired on " + s.until.Format(time.DateOnly) + "."} // Apple only ends the connection
	}
	if s.signer != nil {
		var err error
		if x.bearer, err = s.signer.bearer(); err != nil {
			return channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential, Code: "apns.signing_failed",
				Detail: "The provider token could not be signed."}
		}
	}
	x.gateway = s.gateways[env]
	x.push(ctx, s.channel.hosts[env].base, n)
	c.now = s.channel.now()
	var v verdict
	a := replyOf(x.answer)
	s.reach.learn(env, a, c.now)
	if c.fallible && isEnvironmentRefusal(a.reason) {
		c.other = s.askOther(ctx, env)
	}
	if x.answer.Err != nil {
		v = fromError(ctx, x.answer.Err, x.answer.Wrote, c)
	} else {
		if a.reason == apns2.ReasonExpiredProviderToken && s.signer != nil {
			a.jwtNext = s.signer.expired(x.bearer)
		}
		v = classify(a, c)
	}
	if v.dropConn && x.conn != nil {
		x.gateway.retire(x.conn)
	}
	if v.Outcome == channels.Accepted {
		v.Environment = env
	}
	return v.Result
}

// patience is how long a probe waits for the other gateway once one takes the
// credential: only the words about it depend on that.
const patience = 2 * time.Second

// Probe asks the environments of the credential about a device token that cannot
// exist. One that has a verdict on the token takes the credential, and Apple lets a
// key be limited to one. The detail says which do.
func (s *sender) Probe(ctx context.Context) channels.Result {
	ctx, cancel := context.WithCancel(ctx)
	type word struct {
		env channels.Environment
		channels.Result
	}
	said, words := map[channels.Environment]channels.Result{}, make(chan word, len(s.gateways))
	for env := range s.gateways {
		go func() { words <- word{env, s.probeTwice(ctx, env)} }()
	}
	enough := make(<-chan time.Time)
	for len(said) < len(s.gateways) {
		select {
		case w := <-words:
			if said[w.env] = w.Result; w.Outcome == channels.Accepted {
				enough = time.After(patience)
			}
		case <-enough:
			cancel() // the rest ends with it
			enough = nil
		}
	}
	cancel()
	return summary(said)
}

// summary is what the gateways say together.
func summary(said map[channels.Environment]channels.Result) channels.Result {
	var best, worst channels.Result
	var takes, others []string
	for _, env := range []channels.Environment{channels.Production, channels.Sandbox} {
		r, asked := said[env]
		switch {
		case !asked:
		case r.Outcome == channels.Accepted:
			best, takes = r, append(takes, string(env))
		default:
			others = append(others, string(env)+" does not ("+r.Code+")")
			if worst.Outcome == 0 || worst.Code == codeEnvironment {
				worst = r // the other's refusal says less: the key may not be meant for it
			}
		}
	}
	if len(takes) == 0 {
		return worst
	}
	best.Detail = "APNs takes the credential at " + strings.Join(append([]string{strings.Join(takes, " and ")}, others...), "; ") + "."
	return best
}

// probeTwice repeats the question where the answer asks for a renewal.
func (s *sender) probeTwice(ctx context.Context, env channels.Environment) channels.Result {
	r := s.probe(ctx, env, channels.RenewNothing)
	if r.Renew != channels.RenewNothing {
		r = s.probe(ctx, env, r.Renew)
	}
	return r
}

func (s *sender) probe(ctx context.Context, env channels.Environment, renewed channels.Renewal) channels.Result {
	n := &apns2.Notification{
		DeviceToken: strings.Repeat("0", 64), Topic: s.topic,
		PushType: apns2.PushTypeBackground, Priority: priorityLater,
	}
	x := &exchange{payload: []byte(`{"aps":{"content-available":1}}`), noStore: true}
	r := s.exchange(ctx, env, n, x, circumstances{renewed: renewed})
	r.Environment = "" // of a device; there is none
	if r.Outcome == channels.Gone {
		r = channels.Result{Outcome: channels.Accepted, Code: r.Code, Status: r.Status}
	}
	return r
}

// Close ends the connections, each one when the last request on it has ended.
// A Send that comes later is interrupted.
func (s *sender) Close() {
	s.closing.Do(func() {
		for _, g := range s.gateways {
			g.close()
		}
		if s.signer != nil {
			s.channel.signers.release(s.signer)
		}
	})
}
