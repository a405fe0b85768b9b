package apns

import (
	"context"
	"strings"
	"sync"

	"github.com/sideshow/apns2"

	"github.com/carillonhq/carillon/channels"
)

// sender sends with one credential version.
type sender struct {
	channel  *Channel
	signer   *signer
	topic    string // where a message names none
	gateways map[channels.Environment]*gateway
	closing  sync.Once
}

// Send makes one request. A device whose environment is unknown is tried in
// production; if that does not know it, the Result asks for RenewGateway, and
// the attempt that follows goes to the sandbox.
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
	})
}

// route chooses the gateway. other tells that the sandbox is still to be tried.
func (s *sender) route(env channels.Environment, renewed channels.Renewal) (to channels.Environment, other, ok bool) {
	switch {
	case env == channels.Production || env == channels.Sandbox:
		to = env
	case len(s.gateways) == 1:
		for to = range s.gateways {
		}
	case renewed == channels.RenewGateway:
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
	var err error
	if x.bearer, err = s.signer.bearer(); err != nil {
		return channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential, Code: "apns.signing_failed",
			Detail: "The provider token could not be signed."}
	}
	x.gateway = s.gateways[env]
	x.push(ctx, s.channel.hosts[env].base, n)
	c.now = s.channel.now()
	var v verdict
	if x.answer.Err != nil {
		v = fromError(ctx, x.answer.Err, x.answer.Wrote, c)
	} else {
		a := parseReply(x.answer.Status, x.answer.Header, x.answer.Body)
		if a.reason == apns2.ReasonExpiredProviderToken {
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

// Probe asks each environment of the credential about a device token that
// cannot exist. Any verdict on the token means that the credential was taken.
func (s *sender) Probe(ctx context.Context) channels.Result {
	var r channels.Result
	for _, env := range []channels.Environment{channels.Production, channels.Sandbox} {
		if s.gateways[env] == nil {
			continue
		}
		if r = s.probe(ctx, env, channels.RenewNothing); r.Renew != channels.RenewNothing {
			r = s.probe(ctx, env, r.Renew)
		}
		if r.Outcome != channels.Accepted {
			break
		}
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
		r = channels.Result{Outcome: channels.Accepted, Code: r.Code, Detail: "APNs took the credential.", Status: r.Status}
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
		s.channel.signers.release(s.signer)
	})
}
