package delivery

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// ProbeStore is what probing refused credentials needs.
type ProbeStore interface {
	HoldEnder
	VerificationStore
	// RecoverCredential resumes a credential that its provider takes again.
	RecoverCredential(ctx context.Context, tenant, id ids.ID) error
}

// prober asks providers whether refused credentials work by now.
type prober struct {
	*env
	store   ProbeStore
	tenants *tenantCache
	senders *senders
	hints   *hints
	every   time.Duration
	within  time.Duration

	refusals *refusals
	doubts   *doubts

	asking  slots
	probing atomic.Bool // a round through refused credentials is under way
}

// probeApart is the least time between two questions about one credential.
const probeApart = 10 * time.Second

// begin asks in the background, unless too many are being asked: then this one could
// not be.
func (p *prober) begin(tenant ids.ID, c *tenants.Credential, k subject) {
	if !p.asking.take(tenant) {
		p.refusals.answered(k, wordNone, p.now())
		return
	}
	go func() {
		defer p.asking.leave(tenant)
		p.ask(tenant, c, k)
	}()
}

// ask asks a provider what it thinks of a credential of which it has refused a
// target. Its word is evidence enough, either way.
func (p *prober) ask(tenant ids.ID, c *tenants.Credential, k subject) {
	ctx, cancel := context.WithTimeout(p.running, p.within)
	defer cancel()
	began, w, detail := p.now(), wordNone, ""
	if s, err := p.senders.acquire(ctx, tenant, c.ID, c.Channel, k.version); err == nil {
		defer p.senders.release(s)
		if s.version == k.version {
			r := s.Probe(ctx)
			p.log.Info("a provider has refused a device, and was asked about the credential", "tenant", p.who(tenant), "credential", c.ID.Format(ids.Credential),
				"version", k.version, "outcome", r.Outcome.String(), "code", r.Code)
			p.note(tenant, c, k.version, r)
			switch r.Outcome {
			case channels.Accepted:
				w = wordWorks
			case channels.Denied:
				w, detail = wordRefused, r.Detail
			default: // it cannot be asked now
			}
		}
	}
	p.refusals.answered(k, w, began)
	switch w {
	case wordRefused:
		p.doubts.convict(tenant, k, detail)
	case wordNone: // what was refused while it was asked has to be judged without it
		p.doubts.heard(Refusal{Credential: k.credential, Version: k.version, Origin: k.origin, Tenant: tenant})
	case wordWorks:
	}
}

// note writes down what a provider says of a credential, so that metrics and doctor
// do not go on saying what it said before. That it could not be asked tells nothing
// new.
func (p *prober) note(tenant ids.ID, c *tenants.Credential, version int, r channels.Result) {
	v := tenants.VerificationOf(c.Channel, r, p.now())
	if v.State != tenants.Verified && v.State != tenants.Refused {
		return
	}
	if err := p.store.NoteVerification(p.running, tenant, c.ID, version, v); err != nil {
		p.log.Warn("note what a provider says of a credential", "tenant", p.who(tenant), "credential", c.ID.Format(ids.Credential), "error", err)
	}
}

// probeAll probes refused credentials, for as long as until the next round. It goes
// through them by chance: behind those that hang others have their turn another time.
func (p *prober) probeAll(list []Hold) {
	if !p.probing.CompareAndSwap(false, true) {
		return
	}
	defer p.probing.Store(false)
	over := time.Now().Add(p.every)                                                 // not the engine's clock: it bounds work
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] }) //nolint:gosec // an order is no secret
	inTurn(list, func(h *Hold) ids.ID { return h.Tenant }, func(h *Hold) bool {
		p.probe(*h)
		return p.running.Err() == nil && time.Now().Before(over)
	})
}

func (p *prober) probe(h Hold) {
	if h.Qualifier != "" {
		// A push service cannot be asked without a message: let what is held try.
		if t, err := p.tenants.get(p.running, h.Tenant); err == nil && t.byID[h.Subject] != nil {
			p.refusals.restart(subject{versionKey{h.Subject, t.byID[h.Subject].Version}, h.Qualifier}, p.now())
		}
		if ended, err := p.store.EndHold(p.running, h.ID, Resume); err == nil && ended {
			p.hints.tenantChanged(h.Tenant)
		}
		return
	}
	ctx, cancel := context.WithTimeout(p.running, p.within)
	defer cancel()
	tenant, err := p.tenants.get(ctx, h.Tenant)
	if err != nil || tenant.deleting || tenant.byID[h.Subject] == nil {
		return
	}
	c := tenant.byID[h.Subject]
	s, err := p.senders.acquire(ctx, h.Tenant, c.ID, c.Channel, c.Version)
	if err != nil {
		return
	}
	defer p.senders.release(s)
	r := s.Probe(ctx)
	p.log.Info("a refused credential was probed", "tenant", p.who(h.Tenant), "credential", c.ID.Format(ids.Credential), "outcome", r.Outcome.String(), "code", r.Code)
	p.note(h.Tenant, c, s.version, r)
	if r.Outcome != channels.Accepted {
		// Whoever opened the hold may have been stopped before it went back.
		p.doubts.goBack(h.Tenant, subject{versionKey{c.ID, c.Version}, ""})
		return
	}
	if err := p.store.RecoverCredential(ctx, h.Tenant, c.ID); err != nil {
		p.log.Error("resume a credential", "tenant", p.who(h.Tenant), "credential", c.ID.Format(ids.Credential), "error", err)
		return
	}
	p.hints.tenantChanged(h.Tenant)
}
