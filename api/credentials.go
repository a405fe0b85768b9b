package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// CredentialRegistry keeps what a tenant sends with. It never gives a secret out.
type CredentialRegistry interface {
	PutCredential(ctx context.Context, tenant ids.ID, in tenants.PutCredential, actor string) (tenants.Credential, error)
	// RehearseCredential does what PutCredential does, but stores nothing. It gives the
	// id of the credential that would get a new version, 0 if it would be a new one, and
	// what its provider says.
	RehearseCredential(ctx context.Context, tenant ids.ID, in tenants.PutCredential) (ids.ID, tenants.Verification, error)
	// VerifyCredential asks the provider now, and writes down what it says.
	VerifyCredential(ctx context.Context, tenant, id ids.ID) (tenants.Credential, error)
	Credential(ctx context.Context, tenant, id ids.ID) (tenants.Credential, error)
	Credentials(ctx context.Context, tenant ids.ID) ([]tenants.Credential, error)
	// CountBound counts the subscriptions of a VAPID pair's app.
	CountBound(ctx context.Context, tenant ids.ID, app, key string) (tenants.Bound, error)
	CredentialVersions(ctx context.Context, tenant, id ids.ID) ([]tenants.CredentialVersion, error)
	RollbackCredential(ctx context.Context, tenant, id ids.ID, in tenants.Rollback, actor string) (tenants.Credential, error)
	DeleteCredential(ctx context.Context, tenant, id ids.ID, actor string) error
	PauseCredential(ctx context.Context, tenant, id ids.ID, reason, actor string) (tenants.Credential, error)
	ResumeCredential(ctx context.Context, tenant, id ids.ID, actor string) (tenants.Credential, error)
}

// Credential is a credential as it is shown, without its secret.
type Credential struct {
	ID            string          `json:"id" example:"crd_0d1kq3w8r000c"`
	App           string          `json:"app"`
	Channel       string          `json:"channel" enum:"fcm,apns,webpush"`
	Qualifier     string          `json:"qualifier,omitempty" doc:"What tells credentials of one app and channel apart: the APNs environment, the VAPID public key"`
	Version       int             `json:"version" doc:"Grows with every put"`
	Settings      json.RawMessage `json:"settings" doc:"What may be read of it: project, key id, topics, public key ..."`
	Status        string          `json:"status" enum:"active,paused"`
	Reason        string          `json:"reason,omitempty" doc:"Why it is paused"`
	CreatedAt     time.Time       `json:"created_at"`
	UpdatedAt     time.Time       `json:"updated_at"`
	ExpiresAt     time.Time       `json:"expires_at,omitzero" doc:"Absent: does not expire"`
	ProvenAt      time.Time       `json:"proven_at,omitzero" doc:"The first success of this version; absent: none yet"`
	Verification  Verification    `json:"verification"`
	Troubles      []Trouble       `json:"troubles,omitempty" doc:"What keeps some of its deliveries from being sent though it is active; when it is read, or listed"`
	Subscriptions *Subscriptions  `json:"subscriptions,omitempty" doc:"Of a VAPID pair that is read by its id: the browsers that are bound to it"`
}

// Verification is what the provider said of a version when it was asked.
type Verification struct {
	Status    string    `json:"status" enum:"not_checked,verified,unverified,refused,not_verifiable" doc:"unverified: the provider could not be asked. not_verifiable: a push service tells nothing without a subscription"`
	Verified  bool      `json:"verified"`
	CheckedAt time.Time `json:"checked_at,omitzero"`
	Code      string    `json:"code,omitempty" doc:"As of an attempt"`
	Detail    string    `json:"detail,omitempty"`
	Proves    string    `json:"proves,omitempty" doc:"What it says, and what it does not"`
}

// CredentialVersion is a version of a credential, without its secret.
type CredentialVersion struct {
	Version      int             `json:"version"`
	Current      bool            `json:"current"`
	Kept         bool            `json:"kept" doc:"Its secret is, so that it can be gone back to"`
	Settings     json.RawMessage `json:"settings"`
	Actor        string          `json:"actor,omitempty" doc:"The key that put it"`
	AutoRollback bool            `json:"auto_rollback"`
	CreatedAt    time.Time       `json:"created_at"`
	ExpiresAt    time.Time       `json:"expires_at,omitzero"`
	ProvenAt     time.Time       `json:"proven_at,omitzero"`
	Verification Verification    `json:"verification"`
}

// CredentialRollback says what to go back to.
type CredentialRollback struct {
	Version *int `json:"version,omitempty" minimum:"1" doc:"Where absent: the newest one from before the content of the current one was put (by hand, not by a rollback), which is kept, was not refused, and was not gone back from"`
}

// Subscriptions say how far the browsers of an app have moved to a VAPID pair.
type Subscriptions struct {
	Bound      int  `json:"bound" doc:"Subscriptions that are bound to this pair, of those that are not retired"`
	Unknown    int  `json:"unknown" doc:"Of the app, whose pair is not known yet: their next send tells"`
	App        int  `json:"app" doc:"All of the app"`
	Percent    int  `json:"percent" doc:"The share of the app's that is bound to this pair"`
	LowerBound bool `json:"lower_bound,omitzero" doc:"There may be more: these are of 10,000 that were looked at, a fair sample, so that percent holds for all within one percent or so"`
}

// CredentialInput is the channel's own form of a credential: a service account,
// an APNs key or certificate, or a VAPID pair.
type CredentialInput map[string]jsontext.Value

// Schema says that the form depends on the channel.
func (CredentialInput) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true,
		Description: "The channel's own form of a credential; the page of each channel in the documentation lists its members"}
}

var _ huma.SchemaProvider = CredentialInput{}

// Pause says why something is paused.
type Pause struct {
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"For whoever finds it paused"`
}

type credentialPut struct {
	App          string `path:"app" maxLength:"63" doc:"The app's name; default where there is only one" example:"default"`
	Channel      string `path:"channel" enum:"fcm,apns,webpush"`
	Verify       bool   `query:"verify" default:"true" doc:"false: store it without asking the provider"`
	AutoRollback bool   `query:"auto_rollback" doc:"FCM and APNs: go back, as rollback does, if this one is refused before its first success"`
	Compromised  bool   `query:"compromised" doc:"Destroy the secrets of the versions before at once; what is there again becomes a new version for it"`
	DryRun
}

type credentialRollback struct {
	ID     string `path:"id" doc:"The credential's id" example:"crd_0d1kq3w8r000c"`
	Verify bool   `query:"verify" default:"true" doc:"false: without asking the provider"`
}

type credentialPath struct {
	ID string `path:"id" doc:"The credential's id" example:"crd_0d1kq3w8r000c"`
}

type credentialDelete struct {
	ID string `path:"id" doc:"The credential's id" example:"crd_0d1kq3w8r000c"`
	Care
}

func (s *Server) credentialRoutes() []route {
	const tag = "Credentials"
	scope := needs(tenants.Credentials)
	return []route{
		{method: http.MethodPut, path: "/v1/apps/{app}/credentials/{channel}", access: scope, id: "putCredential", tag: tag,
			summary: "Store a credential, or a new version of it", handler: carefulPut(s.putCredential),
			about: "A new version takes effect with the next delivery, and releases what the old one, or its absence, held. Putting what is there again changes nothing. " +
				"FCM and APNs are asked first whether they take it, within 5 seconds: what they refuse is 422 and changes nothing; what does not answer is stored unverified. " +
				"One credential of a tenant is asked about at a time; where the turn does not come within 5 seconds, the answer is 429 and nothing changes. " +
				"A second VAPID pair of an app needs the member rotate, or the answer is 409. A person's pause stays. The secret is sealed and never shown again."},
		{method: http.MethodGet, path: "/v1/credentials", access: scope, id: "listCredentials", tag: tag,
			summary: "List credentials", handler: withoutBody(s.listCredentials)},
		{method: http.MethodGet, path: "/v1/credentials/{id}", access: scope, id: "getCredential", tag: tag,
			summary: "Read a credential", handler: withoutBody(s.getCredential)},
		{method: http.MethodGet, path: "/v1/credentials/{id}/versions", access: scope, id: "listCredentialVersions", tag: tag,
			summary: "List the versions of a credential, newest first", handler: withoutBody(s.listCredentialVersions)},
		{method: http.MethodPost, path: "/v1/credentials/{id}/rollback", access: scope, id: "rollbackCredential", tag: tag,
			summary: "Go back to an earlier version of a credential", bodyOptional: true, handler: withBody(s.rollbackCredential), example: `{"version":3}`,
			about: "Makes a new version with its content, as long as that is kept (retention.credentials). It is verified as a put is. Calling it again without a version goes further back; 409 where there is nothing to go back to."},
		{method: http.MethodPost, path: "/v1/credentials/{id}/verify", access: scope, id: "verifyCredential", tag: tag,
			summary: "Ask the provider now whether it takes a credential", handler: withoutBody(s.verifyCredential),
			about: "Within 5 seconds, one of a tenant at a time; 429 where the turn does not come within 5 seconds. What it says is in verification, as where the server asks by itself every day: what is refused is held, " +
				"and what was refused and is taken again is released. unverified: it could not be asked, code and detail say why. not_verifiable: a push service cannot be asked without a subscription."},
		{method: http.MethodDelete, path: "/v1/credentials/{id}", access: scope, id: "deleteCredential", tag: tag, status: http.StatusNoContent,
			summary: "Delete a credential", handler: careful[credentialDelete, none](s.deleteCredential),
			about: "What it served is held until there is another. It has to be forced if that strands more than 100 active devices or waiting deliveries, or any subscription of a VAPID pair: browsers do not move to another by themselves."},
		{method: http.MethodPost, path: "/v1/credentials/{id}/pause", access: scope, id: "pauseCredential", tag: tag,
			summary: "Hold all that a credential serves", bodyOptional: true, handler: withBody(s.pauseCredential), example: `{"reason":"key is being replaced"}`},
		{method: http.MethodPost, path: "/v1/credentials/{id}/resume", access: scope, id: "resumeCredential", tag: tag,
			summary: "Release all that is held because of a credential", handler: withoutBody(s.resumeCredential)},
	}
}

func carefulPut(h func(context.Context, *call, *credentialPut) (*answer, error)) handler {
	r := renders[credentialPut, CredentialInput, Credential](h)
	r.careful = true
	return r
}

func (s *Server) putCredential(ctx context.Context, c *call, p *credentialPut) (*answer, error) {
	kind, ok := channels.ParseKind(p.Channel)
	if !ok {
		return nil, problem.New(problem.NotFound, "There is no channel with this name.")
	}
	var shape CredentialInput
	if err := decode(c.body, &shape); err != nil {
		return nil, err
	}
	in := tenants.PutCredential{App: p.App, Channel: kind, Input: c.body,
		Unverified: !p.Verify, AutoRollback: p.AutoRollback, Compromised: p.Compromised}
	if p.DryRun.DryRun {
		return s.rehearseCredential(ctx, c, in)
	}
	got, err := s.tenants.PutCredential(ctx, c.tenant, in, c.actor)
	if err != nil {
		return nil, err
	}
	return done(http.StatusOK, showCredential(got))
}

// rehearseCredential says what a put would affect, and what the provider says.
func (s *Server) rehearseCredential(ctx context.Context, c *call, in tenants.PutCredential) (*answer, error) {
	id, v, err := s.tenants.RehearseCredential(ctx, c.tenant, in)
	if err != nil {
		return nil, err
	}
	out := Affected{DryRun: true}
	if id != 0 {
		a, err := s.reads.Affected(ctx, c.tenant, delivery.AffectedBy{Credential: id})
		if err != nil {
			return nil, err
		}
		out = showAffected(a)
	}
	said := showVerification(in.Channel, v)
	out.Verification = &said
	return done(http.StatusOK, out)
}

func (s *Server) verifyCredential(ctx context.Context, c *call, p *credentialPath) (Credential, error) {
	id, err := pathID(ids.Credential, p.ID, "credential")
	if err != nil {
		return Credential{}, err
	}
	got, err := s.tenants.VerifyCredential(ctx, c.tenant, id)
	return showCredential(got), err
}

func (s *Server) listCredentials(ctx context.Context, c *call, _ *none) (List[Credential], error) {
	rows, err := s.tenants.Credentials(ctx, c.tenant)
	if err != nil {
		return List[Credential]{}, err
	}
	out := singlePage(rows, showCredential)
	troubles, err := s.troubles(ctx, c.tenant)
	for i := range out.Data {
		out.Data[i].Troubles = troubles[out.Data[i].ID]
	}
	return out, err
}

func (s *Server) getCredential(ctx context.Context, c *call, p *credentialPath) (Credential, error) {
	id, err := pathID(ids.Credential, p.ID, "credential")
	if err != nil {
		return Credential{}, err
	}
	got, err := s.tenants.Credential(ctx, c.tenant, id)
	if err != nil {
		return Credential{}, err
	}
	out := showCredential(got)
	troubles, err := s.troubles(ctx, c.tenant)
	out.Troubles = troubles[out.ID]
	if err != nil || got.Channel != channels.WebPush {
		return out, err
	}
	b, err := s.tenants.CountBound(ctx, c.tenant, got.App, got.Qualifier)
	out.Subscriptions = &Subscriptions{Bound: b.Pair, Unknown: b.Unknown, App: b.App, Percent: b.Percent(), LowerBound: b.LowerBound}
	return out, err
}

func (s *Server) listCredentialVersions(ctx context.Context, c *call, p *credentialPath) (List[CredentialVersion], error) {
	id, err := pathID(ids.Credential, p.ID, "credential")
	if err != nil {
		return List[CredentialVersion]{}, err
	}
	got, err := s.tenants.Credential(ctx, c.tenant, id)
	if err != nil {
		return List[CredentialVersion]{}, err
	}
	rows, err := s.tenants.CredentialVersions(ctx, c.tenant, id)
	return singlePage(rows, func(v tenants.CredentialVersion) CredentialVersion {
		return CredentialVersion{Version: v.Version, Current: v.Current, Kept: v.Kept, Settings: orEmpty(v.Settings), Actor: v.Actor, AutoRollback: v.AutoRollback,
			CreatedAt: timestamp(v.CreatedAt), ExpiresAt: timestamp(v.ExpiresAt), ProvenAt: timestamp(v.ProvenAt), Verification: showVerification(got.Channel, v.Verification)}
	}), err
}

func (s *Server) rollbackCredential(ctx context.Context, c *call, p *credentialRollback, in *CredentialRollback) (Credential, error) {
	id, err := pathID(ids.Credential, p.ID, "credential")
	if err != nil {
		return Credential{}, err
	}
	to := tenants.Rollback{Unverified: !p.Verify}
	if in.Version != nil {
		if to.Version = *in.Version; to.Version < 1 {
			return Credential{}, problem.AtField("version", "must be 1 or more; leave it out to go back to the version that worked before")
		}
	}
	got, err := s.tenants.RollbackCredential(ctx, c.tenant, id, to, c.actor)
	return showCredential(got), err
}

func (s *Server) deleteCredential(ctx context.Context, c *call, p *credentialDelete) (*answer, error) {
	id, err := pathID(ids.Credential, p.ID, "credential")
	if err != nil {
		return nil, err
	}
	got, err := s.tenants.Credential(ctx, c.tenant, id)
	if err != nil {
		return nil, err
	}
	most := strandMost
	if got.Channel == channels.WebPush {
		most = 0 // a browser does not come back for another pair by itself
	}
	if a, err := s.lookFor(ctx, c.tenant, delivery.AffectedBy{Credential: id}, most, p.DryRun.DryRun, p.Force); a != nil || err != nil {
		return a, err
	}
	if err := s.tenants.DeleteCredential(ctx, c.tenant, id, c.actor); err != nil {
		return nil, err
	}
	return done(http.StatusNoContent, nil)
}

func (s *Server) pauseCredential(ctx context.Context, c *call, p *credentialPath, in *Pause) (Credential, error) {
	id, err := pathID(ids.Credential, p.ID, "credential")
	if err != nil {
		return Credential{}, err
	}
	got, err := s.tenants.PauseCredential(ctx, c.tenant, id, in.Reason, c.actor)
	return showCredential(got), err
}

func (s *Server) resumeCredential(ctx context.Context, c *call, p *credentialPath) (Credential, error) {
	id, err := pathID(ids.Credential, p.ID, "credential")
	if err != nil {
		return Credential{}, err
	}
	got, err := s.tenants.ResumeCredential(ctx, c.tenant, id, c.actor)
	return showCredential(got), err
}

func showCredential(c tenants.Credential) Credential {
	out := Credential{
		ID: c.ID.Format(ids.Credential), App: c.App, Channel: c.Channel.String(), Qualifier: c.Qualifier, Version: c.Version,
		Settings: c.Settings, Status: string(c.Status), Reason: c.Reason, CreatedAt: timestamp(c.CreatedAt), UpdatedAt: timestamp(c.UpdatedAt),
		ExpiresAt: timestamp(c.ExpiresAt), ProvenAt: timestamp(c.ProvenAt), Verification: showVerification(c.Channel, c.Verification),
	}
	out.Settings = orEmpty(out.Settings)
	return out
}

func orEmpty(settings json.RawMessage) json.RawMessage {
	if len(settings) == 0 {
		return json.RawMessage("{}")
	}
	return settings
}

func showVerification(k channels.Kind, v tenants.Verification) Verification {
	out := Verification{Status: v.State.String(), Verified: v.State == tenants.Verified, CheckedAt: timestamp(v.At), Code: v.Code, Detail: v.Detail}
	if v.State != tenants.Verified {
		return out
	}
	if k == channels.FCM {
		out.Proves = "The key, that the API is enabled, and the permission to send. Not that the devices belong to this project."
	} else {
		out.Proves = "The key or certificate, at one gateway of Apple at least. Not the topics."
	}
	return out
}
