package tenants

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// MaxCredentials is how many credentials a tenant may have.
const MaxCredentials = 1000

// MaxVersions is how many versions of a credential are kept: the newest, and the one
// that it would go back to.
const MaxVersions = 100

// PutCredential is what a caller puts: the channel's own JSON for an app.
type PutCredential struct {
	App     string // "" is DefaultApp
	Channel channels.Kind
	Input   json.RawMessage
	// Unverified: the provider is not asked.
	Unverified   bool
	Compromised  bool // see PutOptions
	AutoRollback bool
}

// PutCredential stores a credential or a new version of it. Which one it is a
// version of follows from what it is for: the app, the channel, and the APNs
// environment or the VAPID public key. An APNs credential for one environment may
// stand beside one for both; the narrower one then serves its environment.
//
// Paths in the error are "app", "channel", or those inside Input.
func (r *Registry) PutCredential(ctx context.Context, tenant ids.ID, in PutCredential, actor string) (Credential, error) {
	if in.App == "" {
		in.App = DefaultApp
	}
	channel, err := r.credentialChannel(in)
	if err != nil {
		return Credential{}, err
	}
	o := PutOptions{Rotate: in.Channel == channels.WebPush && rotates(in.Input), Compromised: in.Compromised, AutoRollback: in.AutoRollback}
	stored, err := r.o.Store.Credentials(ctx, tenant)
	if err != nil {
		return Credential{}, err
	}
	parsed, prior, err := parseCredential(channel, in, stored)
	if err != nil {
		return Credential{}, err
	}
	if !in.Unverified { // outside of everything that others wait for
		if o.Verification, err = r.verify(ctx, tenant, channel, parsed, secretMember(in.Input)); err != nil {
			return Credential{}, err
		}
	}
	// Two puts at a time could both take themselves for the first version.
	r.putting.Lock()
	defer r.putting.Unlock()
	if stored, err = r.o.Store.Credentials(ctx, tenant); err != nil {
		return Credential{}, err
	}
	if now := inPlaceOf(in, parsed.Qualifier, stored); now != nil && (prior == nil || now.ID != prior.ID || now.Version != prior.Version) || now == nil && prior != nil {
		// Somebody was faster: what is there now may refuse it.
		if parsed, prior, err = parseCredential(channel, in, stored); err != nil {
			return Credential{}, err
		}
	}
	c := Credential{Tenant: tenant, App: in.App, Channel: in.Channel}
	if prior != nil {
		c.ID, c.CreatedAt = prior.ID, prior.CreatedAt
	} else if len(stored) >= MaxCredentials {
		return Credential{}, tooMany(len(stored))
	} else {
		c.ID = r.o.IDs.Next()
	}
	if prior != nil && !in.Compromised { // which needs a newer version, to destroy those before
		if same, err := r.sameAsBefore(ctx, tenant, *prior, parsed); err != nil || same {
			return r.putAgain(ctx, *prior, o.Verification, err)
		}
	}
	c.Qualifier, c.Settings, c.ExpiresAt = parsed.Qualifier, parsed.Settings, parsed.ExpiresAt
	c, err = r.o.Store.PutCredential(ctx, c, parsed, o, Change{Actor: actor, Action: "credential.put"})
	if err != nil {
		return Credential{}, err
	}
	r.o.Changed(tenant)
	return c, nil
}

// RehearseCredential checks and verifies what PutCredential would store, and stores
// nothing. It gives the id of the credential that it would be a version of, 0 if it
// would be a new one, and what its provider says.
func (r *Registry) RehearseCredential(ctx context.Context, tenant ids.ID, in PutCredential) (id ids.ID, v Verification, err error) {
	if in.App == "" {
		in.App = DefaultApp
	}
	channel, err := r.credentialChannel(in)
	if err != nil {
		return 0, v, err
	}
	stored, err := r.o.Store.Credentials(ctx, tenant)
	if err != nil {
		return 0, v, err
	}
	parsed, prior, err := parseCredential(channel, in, stored)
	if err == nil && prior == nil && len(stored) >= MaxCredentials {
		err = tooMany(len(stored))
	}
	if err == nil && prior == nil && in.Channel == channels.WebPush && !rotates(in.Input) && hasPair(stored, in.App) {
		err = AnotherPair()
	}
	if err == nil && !in.Unverified {
		v, err = r.verify(ctx, tenant, channel, parsed, secretMember(in.Input))
	}
	if err != nil || prior == nil {
		return 0, v, err
	}
	return prior.ID, v, nil
}

func tooMany(n int) error {
	return problem.New(problem.Conflict, "The tenant has %d credentials, which is the most; delete one first.", n)
}

// CredentialVersions lists the versions of a credential, the newest first.
func (r *Registry) CredentialVersions(ctx context.Context, tenant, id ids.ID) ([]CredentialVersion, error) {
	return r.o.Store.CredentialVersions(ctx, tenant, id)
}

// Rollback says what to go back to.
type Rollback struct {
	Version    int // 0: see CredentialStore.WayBack
	Unverified bool
}

// RollbackCredential makes a new version with the content of an earlier one, as long
// as that is kept.
func (r *Registry) RollbackCredential(ctx context.Context, tenant, id ids.ID, in Rollback, actor string) (Credential, error) {
	c, err := r.o.Store.Credential(ctx, tenant, id)
	if err != nil {
		return c, err
	}
	if c.Version == 1 {
		return c, problem.New(problem.Conflict, "The credential has one version only: there is none to go back to.")
	}
	if in.Version == 0 {
		if in.Version, err = r.o.Store.WayBack(ctx, tenant, id); err != nil {
			return c, err
		}
		if in.Version == 0 {
			return c, problem.New(problem.Conflict, "There is no version to go back to: those from before this content were refused, destroyed, or gone back from. "+
				"Look at the versions, and name the one that you want.")
		}
	}
	if in.Version < 1 || in.Version >= c.Version {
		return c, problem.AtField("version", "must be one before the newest, which is %d", c.Version)
	}
	opened, err := r.o.Store.OpenVersion(ctx, tenant, id, in.Version)
	if err != nil {
		return c, err
	}
	var v Verification
	if ch := r.o.Channels[c.Channel]; ch != nil && !in.Unverified {
		if v, err = r.verify(ctx, tenant, ch, opened, "version"); err != nil {
			return c, err
		}
	}
	c, err = r.o.Store.RollbackCredential(ctx, tenant, id, in.Version, v, Change{Actor: actor, Action: "credential.rollback"})
	if err == nil {
		r.o.Changed(tenant)
	}
	return c, err
}

// rotates tells whether the input of a VAPID pair says that it is one more.
func rotates(input json.RawMessage) bool {
	var in struct {
		Rotate bool `json:"rotate"`
	}
	return json.Unmarshal(input, &in) == nil && in.Rotate
}

// hasPair tells whether an app has a VAPID pair.
func hasPair(stored []Credential, app string) bool {
	return slices.ContainsFunc(stored, func(c Credential) bool { return c.App == app && c.Channel == channels.WebPush })
}

// AnotherPair is the answer to a put of one more VAPID pair that does not say that it
// rotates.
func AnotherPair() error {
	return &problem.Error{Code: problem.Conflict, Detail: "The app has a VAPID pair, and this is another one: nothing was stored. " +
		"With rotate true both stand side by side, browsers subscribe with the new one from then on, and those of before are sent to with theirs.",
		Fields: []problem.Field{{Path: "rotate", Detail: "must be true to add a pair; to change nothing, put the pair that is there, or do not call"}}}
}

// sameAsBefore tells whether what is put is what is there, so that a script which
// runs twice makes nothing new.
func (r *Registry) sameAsBefore(ctx context.Context, tenant ids.ID, prior Credential, parsed channels.Credential) (bool, error) {
	stored, err := r.o.Store.OpenCredential(ctx, tenant, prior.ID)
	if err != nil {
		return false, err
	}
	return bytes.Equal(stored.Secret, parsed.Secret) && bytes.Equal(compact(stored.Settings), compact(parsed.Settings)) && stored.ExpiresAt.Equal(parsed.ExpiresAt), nil
}

func compact(b json.RawMessage) []byte {
	var out bytes.Buffer
	if json.Compact(&out, b) != nil {
		return b
	}
	return out.Bytes()
}

// putAgain is the answer to a put of what is there. Whoever puts it because the
// provider takes it by now has it tried again.
func (r *Registry) putAgain(ctx context.Context, c Credential, v Verification, err error) (Credential, error) {
	if err != nil {
		return c, err
	}
	if v.State != NotChecked {
		if err := r.o.Store.NoteVerification(ctx, c.Tenant, c.ID, c.Version, v); err != nil {
			return c, err
		}
		c.Verification = v
	}
	if c.Status == CredentialActive {
		return c, nil
	}
	if err := r.o.Store.RecoverCredential(ctx, c.Tenant, c.ID); err != nil {
		return c, err
	}
	r.o.Changed(c.Tenant)
	return r.o.Store.Credential(ctx, c.Tenant, c.ID)
}

func (r *Registry) credentialChannel(in PutCredential) (channels.Channel, error) {
	var faults problem.Fields
	if !nameForm.MatchString(in.App) {
		faults.Add("app", nameRule)
	}
	channel, ok := r.o.Channels[in.Channel]
	switch {
	case in.Channel == channels.Webhook:
		faults.Add("channel", "cannot be webhook: an endpoint has its own secrets; use fcm, apns or webpush")
	case in.Channel == 0:
		faults.Add("channel", "is missing; use fcm, apns or webpush")
	case !ok:
		faults.Add("channel", "%s is switched off on this server", in.Channel)
	}
	if in.AutoRollback && in.Compromised {
		faults.Add("auto_rollback", "cannot be together with compromised, which destroys what there is to go back to")
	}
	if in.AutoRollback && in.Channel == channels.WebPush {
		faults.Add("auto_rollback", "cannot be for webpush: no push service can say that it refuses a pair as a whole; leave it out")
	}
	return channel, faults.Err()
}

// parseCredential reads the input, and finds the credential that it is a new
// version of. Only the parsed input tells that, so an input that replaces
// something is read twice: the second time the channel sees what it replaces.
// A key pair that the channel has just made replaces nothing.
func parseCredential(ch channels.Channel, in PutCredential, stored []Credential) (channels.Credential, *Credential, error) {
	parsed, err := ch.ParseCredential(in.Input, nil)
	if err != nil {
		return channels.Credential{}, nil, err
	}
	c := inPlaceOf(in, parsed.Qualifier, stored)
	if c == nil {
		return parsed, nil, nil
	}
	again, err := ch.ParseCredential(in.Input, c.Settings)
	if err == nil && again.Qualifier != c.Qualifier {
		err = fmt.Errorf("channel %s read the same credential in two ways", in.Channel)
	}
	return again, c, err
}

// inPlaceOf finds the stored credential that one with a qualifier is a version of.
func inPlaceOf(in PutCredential, qualifier string, stored []Credential) *Credential {
	for i, c := range stored {
		if c.App == in.App && c.Channel == in.Channel && c.Qualifier == qualifier {
			return &stored[i]
		}
	}
	return nil
}

// Credential returns a credential of the tenant, without its secret.
func (r *Registry) Credential(ctx context.Context, tenant, id ids.ID) (Credential, error) {
	return r.o.Store.Credential(ctx, tenant, id)
}

// Credentials lists the credentials of a tenant, at most MaxCredentials.
func (r *Registry) Credentials(ctx context.Context, tenant ids.ID) ([]Credential, error) {
	return r.o.Store.Credentials(ctx, tenant)
}

// CountBound counts the subscriptions that are bound to a VAPID pair of an app.
func (r *Registry) CountBound(ctx context.Context, tenant ids.ID, app, key string) (Bound, error) {
	return r.o.Store.CountBound(ctx, tenant, app, key)
}

// DeleteCredential forgets a credential. What it served is held until there is
// another.
func (r *Registry) DeleteCredential(ctx context.Context, tenant, id ids.ID, actor string) error {
	if err := r.o.Store.DeleteCredential(ctx, tenant, id, Change{Actor: actor, Action: "credential.delete"}); err != nil {
		return err
	}
	r.o.Changed(tenant)
	return nil
}

// PauseCredential holds what the credential serves until ResumeCredential. It
// may be repeated.
func (r *Registry) PauseCredential(ctx context.Context, tenant, id ids.ID, reason, actor string) (Credential, error) {
	var faults problem.Fields
	checkText(&faults, "reason", reason, 0, MaxReason)
	if err := faults.Err(); err != nil {
		return Credential{}, err
	}
	c, err := r.o.Store.PauseCredential(ctx, tenant, id, reason, Change{Actor: actor, Action: "credential.pause"})
	if err == nil {
		r.o.Changed(tenant)
	}
	return c, err
}

// ResumeCredential ends every hold on the credential. It may be repeated.
func (r *Registry) ResumeCredential(ctx context.Context, tenant, id ids.ID, actor string) (Credential, error) {
	c, err := r.o.Store.ResumeCredential(ctx, tenant, id, Change{Actor: actor, Action: "credential.resume"})
	if err == nil {
		r.o.Changed(tenant)
	}
	return c, err
}
