package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

const (
	// verifyAge is after which time a credential is verified again, and verifySpread
	// what is added to it, differently for each, so that they do not all fall due
	// together.
	verifyAge    = 24 * time.Hour
	verifySpread = 2 * time.Hour
	// verifyMost are looked at in one round.
	verifyMost = 500
)

// VerifyStore is what verifying credentials needs.
type VerifyStore interface {
	// CredentialsToVerify lists active credentials of FCM and APNs that were put, and
	// verified last, before a time: those that have waited longest first.
	CredentialsToVerify(ctx context.Context, before time.Time, limit int) ([]tenants.Credential, error)
	// NoteVerification writes what a provider says of the newest version.
	NoteVerification(ctx context.Context, tenant, id ids.ID, version int, v tenants.Verification) error
}

// verifier asks providers every day what they think of the credentials that are in
// use, so that one which has expired or was revoked is known before a user misses
// something. One node does it for all, one credential after the other.
type verifier struct {
	*env
	store   VerifyStore
	senders *senders
	doubts  *doubts
	duties  *duties
	pause   *pauseSwitch
	every   time.Duration
	within  time.Duration
}

func (v *verifier) run() {
	for v.wait(nil, v.every) {
		if !v.pause.current().On() && v.duties.take("verify credentials", v.every) {
			v.round()
		}
	}
}

// round verifies what is due, for as long as until the next round.
func (v *verifier) round() {
	now := v.now()
	over := time.Now().Add(v.every) // not the engine's clock: it bounds work
	list, err := v.store.CredentialsToVerify(v.running, now.Add(-verifyAge), verifyMost)
	if err != nil {
		v.log.Error("look for credentials to verify", "error", err)
		return
	}
	for i := range list {
		c := &list[i]
		spread := time.Duration(int64(c.ID)%int64(verifySpread/time.Second)) * time.Second
		if now.Sub(latest(c.Verification.At, c.UpdatedAt)) < verifyAge+spread {
			continue
		}
		if v.running.Err() != nil || time.Now().After(over) {
			return
		}
		v.verify(c)
	}
}

func (v *verifier) verify(c *tenants.Credential) {
	ctx, cancel := context.WithTimeout(v.running, v.within)
	defer cancel()
	s, err := v.senders.acquire(ctx, c.Tenant, c.ID, c.Channel, c.Version)
	if err != nil {
		return // whoever sends with it hears of it
	}
	defer v.senders.release(s)
	if s.version != c.Version {
		return
	}
	got := tenants.VerificationOf(c.Channel, s.Probe(ctx), v.now())
	if v.running.Err() != nil {
		return
	}
	if err := v.store.NoteVerification(v.running, c.Tenant, c.ID, c.Version, got); err != nil {
		v.log.Error("note the verification of a credential", "credential", c.ID.Format(ids.Credential), "error", err)
		return
	}
	if got.State == tenants.Refused {
		v.log.Warn("a credential is refused by its provider", "credential", c.ID.Format(ids.Credential), "version", c.Version, "code", got.Code)
		v.doubts.convict(c.Tenant, subject{versionKey{c.ID, c.Version}, ""}, got.Detail)
	}
}
