package fcm

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/egress"
)

const (
	scope         = "https://www.googleapis.com/auth/firebase.messaging" // enough for messages:send
	grantType     = "urn:ietf:params:oauth:grant-type:jwt-bearer"        // RFC 7523 section 2.1
	fetchTimeout  = 10 * time.Second
	renewBefore   = 5 * time.Minute  // a fresh token is fetched while the old one serves
	expiryMargin  = 30 * time.Second // a request takes time
	renewAgain    = 30 * time.Second // after an early renewal that failed
	tokenBytes    = 64 << 10
	assertionLife = time.Hour // the most that Google takes
	clockSkew     = 10 * time.Second
)

// tokens keeps the OAuth access token of one service account. However many
// sends want it, one fetch is under way; it belongs to none of them and takes 10 s
// at most, and each send waits no longer than its own context.
type tokens struct {
	account account
	client  *egress.ProviderTransport
	now     func() time.Time
	life    context.Context
	end     context.CancelFunc

	mu      sync.Mutex
	token   string
	expires time.Time
	renew   time.Time // when to look for the next one
	fetch   *fetch    // nil: none under way
}

type fetch struct {
	done    chan struct{}
	refusal *channels.Result // nil: a token came
	token   string
}

func newTokens(a account, c *egress.ProviderTransport, now func() time.Time) *tokens {
	t := &tokens{account: a, client: c, now: now}
	t.life, t.end = context.WithCancel(context.Background())
	return t
}

// get returns a token, or the verdict that follows from having none.
func (t *tokens) get(ctx context.Context) (string, *channels.Result) {
	if ctx.Err() != nil {
		return "", noToken(channels.FromTransport(ctx, ctx.Err(), false))
	}
	t.mu.Lock()
	now := t.now()
	valid := t.token != "" && now.Before(t.expires)
	if (!valid || !now.Before(t.renew)) && t.fetch == nil {
		t.fetch = &fetch{done: make(chan struct{})}
		go t.run(t.fetch)
	}
	token, f := t.token, t.fetch
	t.mu.Unlock()
	if valid {
		return token, nil
	}
	select {
	case <-f.done:
		return f.token, f.refusal
	case <-ctx.Done():
		return "", noToken(channels.FromTransport(ctx, ctx.Err(), false))
	}
}

// drop forgets a token that was refused, unless a newer one has come already.
func (t *tokens) drop(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token == token {
		t.token = ""
	}
}

func (t *tokens) close() {
	t.end()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.token = ""
}

func (t *tokens) run(f *fetch) {
	ctx, cancel := context.WithTimeout(t.life, fetchTimeout)
	defer cancel()
	token, lifetime, refusal := t.request(ctx)
	now := t.now()
	t.mu.Lock()
	if refusal == nil {
		t.token = token
		t.expires = now.Add(lifetime - expiryMargin)
		t.renew = now.Add(max(lifetime-renewBefore, lifetime/2))
	} else {
		t.renew = now.Add(renewAgain)
	}
	t.fetch = nil
	t.mu.Unlock()
	f.token, f.refusal = token, refusal
	close(f.done)
}

// request asks the token endpoint once (RFC 7523).
func (t *tokens) request(ctx context.Context) (token string, lifetime time.Duration, refusal *channels.Result) {
	assertion, err := t.assertion()
	if err != nil {
		return "", 0, noToken(channels.Result{Outcome: channels.Denied, Code: "fcm.credential_unusable", Detail: "The service account's key cannot sign."})
	}
	form := url.Values{"grant_type": {grantType}, "assertion": {assertion}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.account.tokenURI, strings.NewReader(form))
	if err != nil {
		return "", 0, noToken(channels.Result{Outcome: channels.Denied, Code: "fcm.credential_unusable", Detail: "The token endpoint is not a URL."})
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	a := egress.Exchange(t.client, req, tokenBytes)
	if a.Err != nil {
		return "", 0, noToken(channels.FromTransport(ctx, a.Err, false))
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
		Error       string `json:"error"`
	}
	readable := a.BodyErr == nil && json.Unmarshal(a.Body, &answer) == nil
	if a.Status == http.StatusOK && readable && validToken(answer.AccessToken) {
		if answer.ExpiresIn <= 0 {
			answer.ExpiresIn = int64(assertionLife / time.Second)
		}
		return answer.AccessToken, time.Duration(min(answer.ExpiresIn, 86400)) * time.Second, nil
	}
	return "", 0, noToken(classifyToken(a.Status, a.Header, answer.Error, t.now()))
}

// assertion is a JWT signed with the service account's key.
func (t *tokens) assertion() (string, error) {
	issued := t.now().Add(-clockSkew)
	j := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": t.account.email, "scope": scope, "aud": t.account.tokenURI,
		"iat": issued.Unix(), "exp": issued.Add(assertionLife).Unix(),
	})
	j.Header["kid"] = t.account.keyID
	return j.SignedString(t.account.key)
}

// validToken keeps what cannot stand in a header out of one.
func validToken(s string) bool {
	return s != "" && !slices.ContainsFunc([]byte(s), func(c byte) bool { return c <= ' ' || c >= 0x7f })
}

// noToken makes r the verdict of a send that did not happen: without a token
// everything of the credential has to wait, and nothing was sent.
func noToken(r channels.Result) *channels.Result {
	r.Ambiguous = false
	if r.Outcome != channels.Interrupted {
		r.Scope = channels.ScopeCredential
	}
	r.Unreached = r.Outcome == channels.Retry
	return &r
}
