package simulator

import (
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/carillonhq/carillon/webhooks"
)

const hookPath = "/hook/"

// hookService receives webhooks.
type hookService struct {
	core    *core
	mu      sync.RWMutex
	secrets map[string][][]byte // by receiver
}

func newHookService(c *core) *hookService {
	return &hookService{core: c, secrets: map[string][][]byte{}}
}

// WebhookAccess names receivers and gives them secrets.
type WebhookAccess struct {
	base, overTLS string
	service       *hookService
}

// Webhook tells how to use the webhook receiver.
func (s *Simulator) Webhook() WebhookAccess {
	return WebhookAccess{base: s.plain.url(), overTLS: s.prod.url(), service: s.hooks}
}

// URL is the address of a receiver; any name does, such as Token(Webhook, f, 1).
func (a WebhookAccess) URL(name string) string { return a.base + hookPath + name }

// TLSURL is the same with TLS; the certificate is of APNs().CAs.
func (a WebhookAccess) TLSURL(name string) string { return a.overTLS + hookPath + name }

// SetSecret makes a receiver verify signatures: 401 unless one of the secrets
// ("whsec_...") fits. Without secrets it takes everything again.
func (a WebhookAccess) SetSecret(name string, secrets ...string) error {
	return a.service.setSecret(name, secrets)
}

func (h *hookService) setSecret(name string, secrets []string) error {
	keys := make([][]byte, len(secrets))
	for i, s := range secrets {
		key, err := webhooks.ParseSecret(s)
		if err != nil {
			return fmt.Errorf("secret %d of receiver %q: %w", i+1, name, err)
		}
		keys[i] = key
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if delete(h.secrets, name); len(keys) > 0 {
		h.secrets[name] = keys
	}
	return nil
}

// serve is POST /hook/{name}.
func (h *hookService) serve(p *port, w http.ResponseWriter, r *http.Request) {
	x := &exchange{channel: Webhook, target: strings.TrimPrefix(r.URL.Path, hookPath), refuse: refuseHook}
	x.delivery = r.Header.Get("Webhook-Id")
	x.askFor(x.target)
	x.answer = h.judge(x, r)
	h.core.respond(p, w, r, x)
}

func (h *hookService) judge(x *exchange, r *http.Request) answer {
	if r.Method != http.MethodPost {
		return hookError(http.StatusMethodNotAllowed, "", "Use POST.")
	}
	body, err := readBody(r, bodyLimit)
	x.payload = body
	if err != nil || len(body) > bodyLimit {
		return hookError(http.StatusRequestEntityTooLarge, "", "The body is over 1 MiB, or broke off.")
	}
	h.mu.RLock()
	keys := h.secrets[x.target]
	h.mu.RUnlock()
	if len(keys) > 0 {
		if err := webhooks.Verify(keys, r.Header, body, h.core.now(), webhooks.Tolerance); err != nil {
			return hookError(http.StatusUnauthorized, "unverified", err.Error())
		}
	}
	return answer{status: http.StatusNoContent, accepted: true}
}

func hookError(status int, reason, detail string) answer {
	return answer{status: status, reason: reason, detail: detail, kind: "text/plain; charset=utf-8", body: []byte(detail + "\n")}
}

func refuseHook(f Fault) answer {
	return hookError(f.Status, f.Reason, http.StatusText(f.Status))
}
