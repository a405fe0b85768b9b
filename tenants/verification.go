package tenants

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// VerifyWithin is how long a provider has to answer when it is asked about a
// credential. The wait for a turn, which may be as long again, is no part of it: a
// provider that was not asked has not failed to answer.
const VerifyWithin = 5 * time.Second

// VerificationState is how a version of a credential stands with its provider. The
// numbers are stored; a test pins them.
type VerificationState uint8

// The states.
const (
	NotChecked    VerificationState = 0 // nobody has asked
	Verified      VerificationState = 1 // the provider takes it
	Unverified    VerificationState = 2 // the provider could not be asked
	Refused       VerificationState = 3 // the provider refuses it
	NotVerifiable VerificationState = 4 // no provider can be asked without a message
)

var verificationNames = [...]string{"not_checked", "verified", "unverified", "refused", "not_verifiable"}

func (s VerificationState) String() string {
	if int(s) < len(verificationNames) {
		return verificationNames[s]
	}
	return fmt.Sprintf("verification(%d)", uint8(s))
}

// Verification is what came of asking a provider about a version of a credential.
type Verification struct {
	State        VerificationState
	Code, Detail string // as the provider's answer to a send
	At           time.Time
}

// VerificationOf reads the answer to a probe.
func VerificationOf(k channels.Kind, r channels.Result, at time.Time) Verification {
	v := Verification{State: Unverified, Code: r.Code, Detail: r.Detail, At: at}
	switch {
	case k == channels.WebPush:
		v.State = NotVerifiable
	case r.Outcome == channels.Accepted:
		v.State = Verified
	case r.Outcome == channels.Denied:
		v.State = Refused
	}
	return v
}

// errUnreadable is of a credential that its channel cannot open.
var errUnreadable = errors.New("the credential cannot be opened")

// Unreadable is the verification of a stored credential that cannot be opened.
func Unreadable(at time.Time) Verification {
	return Verification{State: Unverified, Code: "credential_unreadable", Detail: "The stored credential could not be opened.", At: at}
}

// Doubted tells whether this version may not work, by what its provider said last and
// what was sent since. That a provider could not be asked says nothing against one that
// has worked.
func (c *Credential) Doubted() bool {
	switch c.Verification.State {
	case Refused:
		return !c.ProvenAt.After(c.Verification.At)
	case Unverified:
		return c.ProvenAt.IsZero()
	default:
		return false
	}
}

// turns lets one of a tenant's verifications run at a time: a provider that hangs
// takes up no more than that.
type turns struct {
	mu      sync.Mutex
	tenants map[ids.ID]*turn
}

type turn struct {
	taken chan struct{}
	users int
}

// take waits for a turn. leave must be called once if there is no error.
func (t *turns) take(ctx context.Context, tenant ids.ID) (leave func(), err error) {
	t.mu.Lock()
	if t.tenants == nil {
		t.tenants = map[ids.ID]*turn{}
	}
	x := t.tenants[tenant]
	if x == nil {
		x = &turn{taken: make(chan struct{}, 1)}
		t.tenants[tenant] = x
	}
	x.users++
	t.mu.Unlock()
	forget := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if x.users--; x.users == 0 {
			delete(t.tenants, tenant)
		}
	}
	select {
	case x.taken <- struct{}{}:
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
	}
	leave = func() { <-x.taken; forget() }
	if err := ctx.Err(); err != nil { // select takes either where both are ready
		leave()
		return nil, err
	}
	return leave, nil
}

// ask asks the provider what it thinks of a credential. Where its turn does not come
// in time, because others of the tenant's are asked about, that is an error.
func (r *Registry) ask(ctx context.Context, tenant ids.ID, ch channels.Channel, c channels.Credential) (Verification, error) {
	now := r.o.Now()
	if ch.Kind() == channels.WebPush {
		return Verification{State: NotVerifiable, Detail: "A push service tells nothing of a pair without a subscription.", At: now}, nil
	}
	leave, err := r.turn(ctx, tenant)
	if err != nil {
		return Verification{}, err
	}
	defer leave()
	now = r.o.Now()
	within, cancel := context.WithTimeout(ctx, VerifyWithin)
	defer cancel()
	s, err := ch.Open(c)
	if err != nil {
		return Verification{}, fmt.Errorf("open a credential to verify it: %w", errors.Join(errUnreadable, err))
	}
	defer s.Close()
	v := VerificationOf(ch.Kind(), s.Probe(within), now)
	return v, ctx.Err() // if the caller has left, the provider was not heard to its end
}

// turn waits for the tenant's turn to verify, for as long as one verification may take.
func (r *Registry) turn(ctx context.Context, tenant ids.ID) (leave func(), err error) {
	wait, cancel := context.WithTimeout(ctx, VerifyWithin)
	defer cancel()
	leave, err = r.verifying.take(wait, tenant)
	switch {
	case err == nil:
		return leave, nil
	case ctx.Err() != nil:
		return nil, ctx.Err() // the caller has left
	}
	p := problem.New(problem.Throttled, "Credentials of a tenant are verified one at a time, and the turn of this one did not come within %s: its provider was not asked, and nothing has changed. Try again.", VerifyWithin)
	p.RetryAfter = VerifyWithin
	return nil, p
}

// verify asks about a credential that is not stored yet. A refusal is an error at a
// member of the input.
func (r *Registry) verify(ctx context.Context, tenant ids.ID, ch channels.Channel, c channels.Credential, member string) (Verification, error) {
	v, err := r.ask(ctx, tenant, ch, c)
	var p *problem.Error
	switch {
	case errors.As(err, &p) && p.Code == problem.Throttled:
		p.Detail += " With verify=false it is stored without asking."
	case err == nil && v.State == Refused:
		err = &problem.Error{Code: problem.CredentialRefused, Detail: "The provider refuses this credential; nothing was stored.",
			Fields: []problem.Field{{Path: member, Detail: "is refused (" + v.Code + "): " + v.Detail}}}
	}
	return v, err
}

// VerifyCredential asks the provider now what it thinks of a credential that is in
// use, and writes that down. What it refuses is held, and what it takes again is not,
// as where the server has asked by itself.
func (r *Registry) VerifyCredential(ctx context.Context, tenant, id ids.ID) (Credential, error) {
	c, err := r.o.Store.Credential(ctx, tenant, id)
	if err != nil {
		return c, err
	}
	ch := r.o.Channels[c.Channel]
	if ch == nil {
		return c, problem.New(problem.Conflict, "The channel %s is switched off on this server, so its provider cannot be asked.", c.Channel)
	}
	opened, err := r.o.Store.OpenCredential(ctx, tenant, id)
	if err != nil {
		return c, err
	}
	v, err := r.ask(ctx, tenant, ch, opened)
	switch {
	case errors.Is(err, errUnreadable):
		v = Unreadable(r.o.Now())
	case err != nil:
		return c, err
	}
	if err := r.o.Store.NoteVerification(ctx, tenant, id, opened.Version, v); err != nil {
		return c, err
	}
	switch {
	case v.State == Refused:
		r.o.Refused(tenant, id, opened.Version, v.Detail)
	case v.State == Verified && c.Status != CredentialActive:
		if err := r.o.Store.RecoverCredential(ctx, tenant, id); err != nil {
			return c, err
		}
		r.o.Changed(tenant)
	}
	return r.o.Store.Credential(ctx, tenant, id)
}

// secretMember is what the secret of a credential is called in the input.
func secretMember(input json.RawMessage) string {
	var members map[string]json.RawMessage
	if json.Unmarshal(input, &members) == nil {
		for _, name := range []string{"service_account", "certificate", "p12"} {
			if _, there := members[name]; there {
				return name
			}
		}
	}
	return "key"
}
