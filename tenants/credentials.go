package tenants

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// MaxCredentials is how many credentials a tenant may have.
const MaxCredentials = 1000

// PutCredential is what a caller puts: the channel's own JSON for an app.
type PutCredential struct {
	App     string // "" is DefaultApp
	Channel channels.Kind
	Input   json.RawMessage
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
	// Two puts at a time could both take themselves for the first version.
	r.putting.Lock()
	defer r.putting.Unlock()
	stored, err := r.o.Store.Credentials(ctx, tenant)
	if err != nil {
		return Credential{}, err
	}
	parsed, prior, err := parseCredential(channel, in, stored)
	if err != nil {
		return Credential{}, err
	}
	c := Credential{Tenant: tenant, App: in.App, Channel: in.Channel}
	if prior != nil {
		c.ID, c.CreatedAt = prior.ID, prior.CreatedAt
	} else if len(stored) >= MaxCredentials {
		return Credential{}, problem.New(problem.Conflict, "The tenant has %d credentials, which is the most; delete one first.", len(stored))
	} else {
		c.ID = r.o.IDs.Next()
	}
	if prior != nil {
		if same, err := r.sameAsBefore(ctx, tenant, *prior, parsed); err != nil || same {
			return r.putAgain(ctx, *prior, err)
		}
	}
	c.Qualifier, c.Settings, c.ExpiresAt = parsed.Qualifier, parsed.Settings, parsed.ExpiresAt
	o := PutOptions{Rotate: in.Channel == channels.WebPush && rotates(in.Input)}
	c, err = r.o.Store.PutCredential(ctx, c, parsed, o, Change{Actor: actor, Action: "credential.put"})
	if err != nil {
		return Credential{}, err
	}
	r.o.Changed(tenant)
	return c, nil
}

// rotates tells whether the input of a VAPID pair says that it is one more.
func rotates(input json.RawMessage) bool {
	var in struct {
		Rotate bool `json:"rotate"`
	}
	return json.Unmarshal(input, &in) == nil && in.Rotate
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
func (r *Registry) putAgain(ctx context.Context, c Credential, err error) (Credential, error) {
	if err != nil || c.Status == CredentialActive {
		return c, err
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
	for i, c := range stored {
		if c.App != in.App || c.Channel != in.Channel || c.Qualifier != parsed.Qualifier {
			continue
		}
		again, err := ch.ParseCredential(in.Input, c.Settings)
		if err == nil && again.Qualifier != c.Qualifier {
			err = fmt.Errorf("channel %s read the same credential in two ways", in.Channel)
		}
		return again, &stored[i], err
	}
	return parsed, nil, nil
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
