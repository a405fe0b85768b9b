package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

const (
	// verifyAge is after which time a credential is verified again, and verifySpread
	// what is added to it, differently for each, so that they do not all fall due
	// together.
	verifyAge    = 24 * time.Hour
	verifySpread = 2 * time.Hour
	// verifyAgain is the same for one that could not be asked about, or was refused and
	// is in use all the same: an outage of a minute is no state for a day.
	verifyAgain = time.Hour
	// verifyMost are looked at in one round.
	verifyMost = 500
)

// VerificationStore keeps what providers say of credentials.
type VerificationStore interface {
	// NoteVerification writes what a provider says of the newest version.
	NoteVerification(ctx context.Context, tenant, id ids.ID, version int, v tenants.Verification) error
}

// VerifyStore is what verifying credentials needs.
type VerifyStore interface {
	CredentialStore
	VerificationStore
	// CredentialsToVerify lists active credentials of some channels that were put, and
	// verified last, before a time; and those whose last verification, before another
	// time, was none or a refusal. Tenants have their turns in the list, each with those
	// that have waited longest.
	CredentialsToVerify(ctx context.Context, of []channels.Kind, before, again time.Time, limit int) ([]tenants.Credential, error)
}

// verifier asks providers every day what they think of the credentials that are in
// use, so that one which has expired or was revoked is known before a user misses
// something. One node does it for all, a few credentials at a time and one of a
// tenant at most.
type verifier struct {
	*env
	store    VerifyStore
	channels map[channels.Kind]channels.Channel
	doubts   *doubts
	duties   *duties
	pause    *pauseSwitch
	every    time.Duration
	within   time.Duration
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
	list, err := v.store.CredentialsToVerify(v.running, v.kinds(), now.Add(-verifyAge), now.Add(-verifyAgain), verifyMost)
	if err != nil {
		v.log.Error("look for credentials to verify", "error", err)
		return
	}
	inTurn(list, func(c *tenants.Credential) ids.ID { return c.Tenant }, func(c *tenants.Credential) bool {
		if dueForVerification(c, now) {
			v.verify(c)
		}
		return v.running.Err() == nil && time.Now().Before(over)
	})
}

// kinds are the channels of this server whose providers can be asked.
func (v *verifier) kinds() (out []channels.Kind) {
	for _, k := range channels.Kinds() {
		if v.channels[k] != nil && canBeAsked(k) {
			out = append(out, k)
		}
	}
	return out
}

// dueForVerification tells whether the time of one of those that the store lists has come.
func dueForVerification(c *tenants.Credential, now time.Time) bool {
	if s := c.Verification.State; s == tenants.Unverified || s == tenants.Refused {
		return true
	}
	spread := time.Duration(int64(c.ID)%int64(verifySpread/time.Second)) * time.Second
	return now.Sub(latest(c.Verification.At, c.UpdatedAt)) >= verifyAge+spread
}

// verify asks with a sender of its own: an access token that an open one has from
// before would prove less, and one for whom nothing is sent is not kept open.
func (v *verifier) verify(c *tenants.Credential) {
	ctx, cancel := context.WithTimeout(v.running, v.within)
	defer cancel()
	got := tenants.Unreadable(v.now())
	opened, err := v.store.OpenCredential(ctx, c.Tenant, c.ID)
	if err == nil && opened.Version != c.Version {
		return // the new one was verified when it was put
	}
	var s channels.Sender
	if err == nil {
		s, err = v.channels[c.Channel].Open(opened)
	}
	if err == nil {
		got = tenants.VerificationOf(c.Channel, s.Probe(ctx), v.now())
		s.Close()
	} else {
		v.log.Warn("open a credential to verify it", "tenant", v.who(c.Tenant), "credential", c.ID.Format(ids.Credential), "error", err)
	}
	if v.running.Err() != nil {
		return
	}
	if err := v.store.NoteVerification(v.running, c.Tenant, c.ID, c.Version, got); err != nil {
		v.log.Error("note the verification of a credential", "tenant", v.who(c.Tenant), "credential", c.ID.Format(ids.Credential), "error", err)
		return
	}
	if got.State == tenants.Refused {
		v.log.Warn("a credential is refused by its provider", "tenant", v.who(c.Tenant), "credential", c.ID.Format(ids.Credential), "version", c.Version, "code", got.Code)
		v.doubts.convict(c.Tenant, subject{versionKey{c.ID, c.Version}, ""}, got.Detail)
	}
}
