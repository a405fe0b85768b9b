package delivery

import (
	"context"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
)

// EvidenceStore is what weighing a verdict needs.
type EvidenceStore interface {
	// HasWorked tells whether something was sent to a target of a user before, as
	// far as the newest of the user's deliveries say. It is asked about targets that
	// are refused or gone, never about a success.
	HasWorked(ctx context.Context, tenant, user, target ids.ID) (bool, error)
}

// assess counts the verdict, and says how far it may be believed. An endpoint speaks
// for itself.
func (a *attempter) assess(it *inflight, r *route, ans *answer) (noted, Assessment) {
	if r.credential == nil {
		return noted{}, Assessment{}
	}
	e := evidence{newest: r.tenant.hasVersion(r.version())}
	known := e.newest && !r.tenant.byID[r.credential.ID].ProvenAt.IsZero()
	w := a.witness(it, &ans.Result)
	n := a.breakers.note(r.version(), ans.Outcome, known, w, ans.at)
	e.proven, e.breakerOpen = n.proven, n.open
	k := subjectOf(it, r.version())
	switch {
	case ans.Outcome == channels.Accepted:
		a.refusals.success(k, ans.at)
	case ans.Outcome == channels.Denied && e.newest:
		a.refused(it, r, ans, k, w.worked, &e)
	}
	return n, assess(ans.Result, it.Channel, e)
}

// witness is who a verdict is about, as far as it matters.
func (a *attempter) witness(it *inflight, r *channels.Result) witness {
	// Another key says nothing of the device.
	w := witness{user: it.UserID, again: it.target.Device == devices.Suspect || r.Resubscribe}
	if r.Outcome == channels.Denied || r.Outcome == channels.Gone && !w.again {
		// Where it cannot be told, the target has half a voice.
		w.worked, _ = a.store.HasWorked(a.sending, it.Tenant, it.UserID, it.Target)
	}
	return w
}

// refused notes a refusal, has the provider asked, and finds what is known by now.
func (a *attempter) refused(it *inflight, r *route, ans *answer, k subject, worked bool, e *evidence) {
	c := r.tenant.byID[r.credential.ID]
	_, e.held = r.tenant.holds[holdKey{scope: HoldCredential, subject: c.ID, qualifier: k.origin}]
	n := Refusal{Credential: c.ID, Version: k.version, Origin: k.origin, Tenant: it.Tenant, Target: it.Target, User: it.UserID,
		Worked: worked, At: ans.at, Detail: ans.Detail, Again: it.looked > 0 || it.target.Device == devices.Suspect}
	if it.Renewed == channels.RenewToken && !it.since.IsZero() {
		n.At = it.since // it was refused first with the token of before
	}
	ask, enough := a.refusals.refuse(n, canBeAsked(it.Channel))
	if ask {
		a.prober.begin(it.Tenant, c, k)
	}
	switch {
	case a.refusals.shared:
		a.hints.exchange.raise()
	case enough:
		go a.settle(n)
	}
	j := a.refusals.judge(k, c.UpdatedAt, ans.at)
	e.enough, e.word, e.worked = j.enough, j.word, j.worked
}

// settle judges what was refused on a node that is alone, once what was sent meanwhile
// has had time to be answered.
func (a *attempter) settle(n Refusal) {
	if a.wait(nil, evidenceSettles) {
		a.doubts.heard(n)
	}
}

// subjectOf is what a refusal of a delivery is about.
func subjectOf(it *inflight, v versionKey) subject {
	if it.Channel == channels.WebPush {
		return subject{v, it.target.origin()}
	}
	return subject{v, ""}
}
