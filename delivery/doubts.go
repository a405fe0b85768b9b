package delivery

import (
	"context"
	"strings"
	"time"

	"github.com/carillonhq/carillon/ids"
)

// HoldEnder ends holds.
type HoldEnder interface {
	// EndHold says where the deliveries of a hold go; false: it does not stand.
	EndHold(ctx context.Context, hold ids.ID, e Ending) (bool, error)
}

// DoubtStore is what doubts need.
type DoubtStore interface {
	HoldEnder
	// UnretireDevices makes devices suspect again that a version retired since.
	UnretireDevices(ctx context.Context, credential ids.ID, version int, since, now time.Time) (int, error)
	// RefuseCredential opens the hold of a credential that its provider refuses, or of
	// one push service of it, unless it has a newer version than the hold names, and
	// lets those that are in doubt because of it join. opened: it did not stand before.
	RefuseCredential(ctx context.Context, h Hold) (opened bool, err error)
	// GoBack makes the version before a refused one current again, as a new one, where
	// whoever put it asked for that, and it has never worked. to is 0 where that was not
	// so, or where there is none to go back to.
	GoBack(ctx context.Context, tenant, credential ids.ID, version int, now time.Time) (asked bool, to int, err error)
}

// doubts follow up on what a credential version said of devices: a success of a
// version whose breaker is closed confirms it, a breaker that opens takes it back.
type doubts struct {
	*env
	store    DoubtStore
	tenants  *tenantCache
	breakers *breakers
	refusals *refusals
	hints    *hints
}

// confirm ends the doubt about what a version said of devices once it has had a
// success since. It is looked at after every success, and when the doubt arises,
// because the success may be faster than the news of the doubt: whichever comes
// second sees the other.
func (d *doubts) confirm(tenant ids.ID, k versionKey) {
	s, err := d.tenants.get(d.running, tenant)
	if err != nil {
		return // the next success looks again
	}
	h, ok := s.doubt(k)
	if !ok || !d.breakers.confirms(k, h.Since) {
		return
	}
	if ended, err := d.store.EndHold(d.running, h.ID, Confirm); err != nil {
		d.log.Warn("confirm a doubt", "tenant", d.who(tenant), "hold", h.ID.Format(ids.Hold), "error", err)
	} else if ended {
		d.hints.tenantChanged(tenant)
	}
}

// holdOpened follows up on a hold that has just been opened.
func (d *doubts) holdOpened(tenant ids.ID, k versionKey, h Hold) {
	d.hints.tenantChanged(tenant)
	if h.Scope == HoldCredential && h.Reason == CredentialDenied {
		d.goBackAtFirst(tenant, subject{k, h.Qualifier})
		return
	}
	d.confirm(tenant, k)
}

// convict holds a credential that is to blame for what was refused.
func (d *doubts) convict(tenant ids.ID, k subject, why string) {
	opened, err := d.store.RefuseCredential(d.running, Hold{Tenant: tenant, Scope: HoldCredential, Subject: k.credential, Version: k.version,
		Qualifier: k.origin, Reason: CredentialDenied, Detail: why, Since: d.now()})
	if err != nil {
		d.log.Warn("hold a refused credential", "tenant", d.who(tenant), "credential", k.credential.Format(ids.Credential), "error", err)
	}
	if opened {
		d.log.Warn("a credential is refused, and held with all that it serves", "tenant", d.who(tenant), "credential", k.credential.Format(ids.Credential), "version", k.version, "origin", k.origin,
			"why", why)
		d.hints.tenantChanged(tenant)
		d.goBackAtFirst(tenant, k)
	}
}

// goBackAtFirst goes back as soon as a version is held, and says so where it cannot.
func (d *doubts) goBackAtFirst(tenant ids.ID, k subject) {
	if d.goBack(tenant, k) {
		d.log.Warn("a new version of a credential is refused, and there is none to go back to although auto_rollback was asked for", "tenant", d.who(tenant),
			"credential", k.credential.Format(ids.Credential), "version", k.version)
	}
}

// goBack has a new version that is refused replaced by the one before, where that was
// asked for. stuck: it was, and there is none before.
func (d *doubts) goBack(tenant ids.ID, k subject) (stuck bool) {
	if k.origin != "" {
		return false // other push services may take it
	}
	asked, to, err := d.store.GoBack(d.running, tenant, k.credential, k.version, d.now())
	if err != nil {
		d.log.Warn("go back to the version before", "tenant", d.who(tenant), "credential", k.credential.Format(ids.Credential), "error", err)
		return false
	}
	if to > 0 {
		d.log.Warn("a new version of a credential is refused; the one before is current again", "tenant", d.who(tenant), "credential", k.credential.Format(ids.Credential), "refused", k.version, "back_to", to)
		d.hints.tenantChanged(tenant)
	}
	return asked && to == 0
}

// heard judges what was refused once those have been heard that may know better: the
// other nodes, and the provider.
func (d *doubts) heard(n Refusal) {
	s, err := d.tenants.get(d.running, n.Tenant)
	if err != nil {
		return // the next refusal looks again
	}
	k := n.subject()
	if _, held := s.holds[holdKey{scope: HoldCredential, subject: k.credential, qualifier: k.origin}]; held {
		return
	}
	c := s.byID[k.credential]
	if c == nil || !s.hasVersion(k.versionKey) {
		return
	}
	if j := d.refusals.judge(k, c.UpdatedAt, d.now()); j.enough {
		d.convict(n.Tenant, k, strings.TrimSpace("Several devices of several users were refused, and nothing was taken since. "+j.said))
	}
}

// breakerOpened takes back what a version has retired lately. On other nodes the
// breaker opens too; whoever is second finds nothing left to take back.
func (d *doubts) breakerOpened(k versionKey, since, now time.Time) {
	n, err := d.store.UnretireDevices(d.running, k.credential, k.version, since, now)
	d.log.Warn("so many devices were called gone that the credential is in doubt; those retired lately are suspect again",
		"credential", k.credential.Format(ids.Credential), "version", k.version, "devices", n, "error", err)
}
