package simulator

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	tokenPath = "/token"
	jwtBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	// googleToken is accepted as an assertion's audience beside our own URL, for
	// senders whose HTTP client alone is led here.
	googleToken    = "https://oauth2.googleapis.com/token"
	scopeMessaging = "https://www.googleapis.com/auth/firebase.messaging"
	scopeCloud     = "https://www.googleapis.com/auth/cloud-platform"
	tokenLife      = time.Hour
	clockSkew      = 5 * time.Minute
)

// access is what an access token stands for.
type access struct {
	email     string
	project   string
	messaging bool
	expires   time.Time
}

// serveToken is Google's OAuth token endpoint for service accounts (RFC 7523).
func (f *fcmService) serveToken(p *port, w http.ResponseWriter, r *http.Request) {
	x := &exchange{channel: OAuth, target: "token", refuse: refuseOAuth}
	if body, err := readBody(r, 64<<10); err != nil || r.Method != http.MethodPost {
		x.answer = oauthError(http.StatusBadRequest, "invalid_request", "POST a form.")
	} else if form, err := url.ParseQuery(string(body)); err != nil {
		x.answer = oauthError(http.StatusBadRequest, "invalid_request", "The body is not a form.")
	} else {
		x.answer = f.grant(x, form, p.url(), r.Host)
	}
	f.core.respond(p, w, r, x)
}

func (f *fcmService) grant(x *exchange, form url.Values, own, host string) answer {
	if grant := form.Get("grant_type"); grant != jwtBearer {
		return oauthError(http.StatusBadRequest, "unsupported_grant_type", "Invalid grant_type: "+grant)
	}
	t, err := parseJWT(form.Get("assertion"))
	if err != nil {
		return oauthError(http.StatusBadRequest, "invalid_grant", "Invalid JWT: "+err.Error()+".")
	}
	x.target = t.claims.Iss
	account, key := f.accountKey(t.claims.Iss, t.header.Kid)
	if account == nil {
		return oauthError(http.StatusBadRequest, "invalid_grant", "Invalid grant: account not found")
	}
	if key == nil || !t.signedRS256(key) {
		return oauthError(http.StatusBadRequest, "invalid_grant", "Invalid JWT Signature.")
	}
	scheme, _, _ := strings.Cut(own, "://")
	switch t.claims.Aud {
	case own + tokenPath, scheme + "://" + host + tokenPath, googleToken:
	default:
		return oauthError(http.StatusBadRequest, "invalid_grant", "Invalid JWT: Failed audience check. The right audience is "+own+tokenPath)
	}
	now := f.core.now()
	issued, expires := time.Unix(t.claims.Iat, 0), time.Unix(t.claims.Exp, 0)
	if issued.After(now.Add(clockSkew)) || !expires.After(now.Add(-clockSkew)) || expires.Sub(issued) > tokenLife+clockSkew {
		return oauthError(http.StatusBadRequest, "invalid_grant", "Invalid JWT: Token must be a short-lived token "+
			"(60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim.")
	}
	scopes := strings.Fields(t.claims.Scope)
	if len(scopes) == 0 {
		return oauthError(http.StatusBadRequest, "invalid_scope", "Empty or missing scope not allowed.")
	}
	a := access{email: t.claims.Iss, project: account.project, expires: now.Add(tokenLife)}
	for _, s := range scopes {
		a.messaging = a.messaging || s == scopeMessaging || s == scopeCloud
	}
	token := "ya29.sim-" + rand.Text()
	f.issued.Store(token, a)
	body, _ := json.Marshal(map[string]any{"access_token": token, "expires_in": int(tokenLife/time.Second) - 1,
		"token_type": "Bearer"}) // a map of plain values always encodes
	return answer{status: http.StatusOK, accepted: true, kind: jsonKind, body: body}
}

func oauthError(status int, name, description string) answer {
	body, _ := json.Marshal(map[string]string{"error": name, "error_description": description})
	return answer{status: status, reason: name, detail: description, kind: jsonKind, body: body}
}

func refuseOAuth(f Fault) answer {
	switch {
	case f.Reason != "":
		return oauthError(f.Status, f.Reason, "A fault was asked for.")
	case f.Status == http.StatusBadRequest:
		return oauthError(f.Status, "invalid_grant", "Invalid JWT Signature.")
	case f.Status == http.StatusUnauthorized:
		return oauthError(f.Status, "invalid_client", "The OAuth client was not found.")
	case f.Status >= 500:
		return oauthError(f.Status, "internal_failure", "Internal Error")
	}
	return oauthError(f.Status, "rate_limit_exceeded", "")
}

// account is a service account with the public keys that are good for it.
type account struct {
	project string
	keys    map[string]*rsa.PublicKey // by private_key_id
}

func (f *fcmService) accountKey(email, kid string) (*account, *rsa.PublicKey) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	a := f.accounts[email]
	if a == nil {
		return nil, nil
	}
	if kid == "" && len(a.keys) == 1 {
		for _, key := range a.keys {
			return a, key
		}
	}
	return a, a.keys[kid]
}

func (f *fcmService) register(email, project, kid string, key *rsa.PublicKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.accounts[email] == nil {
		f.accounts[email] = &account{project: project, keys: map[string]*rsa.PublicKey{}}
	}
	f.accounts[email].keys[kid] = key
}

// bearer finds what a request's access token stands for.
func (f *fcmService) bearer(r *http.Request) (access, bool) {
	const scheme = "Bearer "
	values := r.Header["Authorization"]
	if len(values) != 1 || len(values[0]) <= len(scheme) || !strings.EqualFold(values[0][:len(scheme)], scheme) {
		return access{}, false
	}
	v, ok := f.issued.Load(values[0][len(scheme):])
	if !ok {
		return access{}, false
	}
	a := v.(access)
	if !a.expires.After(f.core.now()) {
		f.issued.Delete(values[0][len(scheme):])
		return access{}, false
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	return a, f.accounts[a.email] != nil
}

// serviceAccountJSON is the key file as Google's console gives it out.
func serviceAccountJSON(project, email, kid, tokenURI string, keyPEM []byte) []byte {
	body, _ := json.MarshalIndent(map[string]string{
		"type": "service_account", "project_id": project, "private_key_id": kid, "private_key": string(keyPEM),
		"client_email": email, "client_id": "100000000000000000000",
		"auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_uri": tokenURI,
		"auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
		"client_x509_cert_url":        fmt.Sprintf("https://www.googleapis.com/robot/v1/metadata/x509/%s", url.QueryEscape(email)),
		"universe_domain":             "googleapis.com",
	}, "", "  ") // strings always encode
	return body
}
