package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// CredentialRegistry keeps what a tenant sends with. It never gives a secret out.
type CredentialRegistry interface {
	PutCredential(ctx context.Context, tenant ids.ID, in tenants.PutCredential, actor string) (tenants.Credential, error)
	Credential(ctx context.Context, tenant, id ids.ID) (tenants.Credential, error)
	Credentials(ctx context.Context, tenant ids.ID) ([]tenants.Credential, error)
	DeleteCredential(ctx context.Context, tenant, id ids.ID, actor string) error
	PauseCredential(ctx context.Context, tenant, id ids.ID, reason, actor string) (tenants.Credential, error)
	ResumeCredential(ctx context.Context, tenant, id ids.ID, actor string) (tenants.Credential, error)
}

// Credential is a credential as it is shown, without its secret.
type Credential struct {
	ID        string          `json:"id" example:"crd_0d1kq3w8r000c"`
	App       string          `json:"app"`
	Channel   string          `json:"channel" enum:"fcm,apns,webpush"`
	Qualifier string          `json:"qualifier,omitempty" doc:"What tells credentials of one app and channel apart: the APNs environment, the VAPID public key"`
	Version   int             `json:"version" doc:"Grows with every put"`
	Settings  json.RawMessage `json:"settings" doc:"What may be read of it: project, key id, topics, public key ..."`
	Status    string          `json:"status" enum:"active,paused"`
	Reason    string          `json:"reason,omitempty" doc:"Why it is paused"`
	CreatedAt time.Time       `json:"created_at"`
	UpdatedAt time.Time       `json:"updated_at"`
	ExpiresAt time.Time       `json:"expires_at,omitzero" doc:"Absent: does not expire"`
	ProvenAt  time.Time       `json:"proven_at,omitzero" doc:"The first success of this version; absent: none yet"`
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
	App     string `path:"app" maxLength:"63" doc:"The app's name; default where there is only one" example:"default"`
	Channel string `path:"channel" enum:"fcm,apns,webpush"`
}

type credentialPath struct {
	ID string `path:"id" doc:"The credential's id" example:"crd_0d1kq3w8r000c"`
}

func (s *Server) credentialRoutes() []route {
	const tag = "Credentials"
	scope := needs(tenants.Credentials)
	return []route{
		{method: http.MethodPut, path: "/v1/apps/{app}/credentials/{channel}", access: scope, id: "putCredential", tag: tag,
			summary: "Store a credential, or a new version of it", handler: withBody(s.putCredential),
			about: "A new version takes effect with the next delivery, and releases what the old one, or its absence, held. The secret is sealed and never shown again."},
		{method: http.MethodGet, path: "/v1/credentials", access: scope, id: "listCredentials", tag: tag,
			summary: "List credentials", handler: withoutBody(s.listCredentials)},
		{method: http.MethodGet, path: "/v1/credentials/{id}", access: scope, id: "getCredential", tag: tag,
			summary: "Read a credential", handler: withoutBody(s.getCredential)},
		{method: http.MethodDelete, path: "/v1/credentials/{id}", access: scope, id: "deleteCredential", tag: tag, status: http.StatusNoContent,
			summary: "Delete a credential", about: "What it served is held until there is another.", handler: noContent(s.deleteCredential)},
		{method: http.MethodPost, path: "/v1/credentials/{id}/pause", access: scope, id: "pauseCredential", tag: tag,
			summary: "Hold all that a credential serves", bodyOptional: true, handler: withBody(s.pauseCredential), example: `{"reason":"key is being replaced"}`},
		{method: http.MethodPost, path: "/v1/credentials/{id}/resume", access: scope, id: "resumeCredential", tag: tag,
			summary: "Release all that is held because of a credential", handler: withoutBody(s.resumeCredential)},
	}
}

func (s *Server) putCredential(ctx context.Context, c *call, p *credentialPut, _ *CredentialInput) (Credential, error) {
	kind, ok := channels.ParseKind(p.Channel)
	if !ok {
		return Credential{}, problem.New(problem.NotFound, "There is no channel with this name.")
	}
	got, err := s.tenants.PutCredential(ctx, c.tenant, tenants.PutCredential{App: p.App, Channel: kind, Input: c.body}, c.actor)
	return showCredential(got), err
}

func (s *Server) listCredentials(ctx context.Context, c *call, _ *none) (List[Credential], error) {
	rows, err := s.tenants.Credentials(ctx, c.tenant)
	return singlePage(rows, showCredential), err
}

func (s *Server) getCredential(ctx context.Context, c *call, p *credentialPath) (Credential, error) {
	id, err := pathID(ids.Credential, p.ID, "credential")
	if err != nil {
		return Credential{}, err
	}
	got, err := s.tenants.Credential(ctx, c.tenant, id)
	return showCredential(got), err
}

func (s *Server) deleteCredential(ctx context.Context, c *call, p *credentialPath) error {
	id, err := pathID(ids.Credential, p.ID, "credential")
	if err != nil {
		return err
	}
	return s.tenants.DeleteCredential(ctx, c.tenant, id, c.actor)
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
		ExpiresAt: timestamp(c.ExpiresAt), ProvenAt: timestamp(c.ProvenAt),
	}
	if len(out.Settings) == 0 {
		out.Settings = json.RawMessage("{}")
	}
	return out
}
