package e2e_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// operation is a route as /openapi.json tells it: a new one is in the sweep
// without anybody thinking of it.
type operation struct {
	method, path string
	hasBody      bool
}

func (o operation) String() string { return o.method + " " + o.path }

// operations are all routes, with the ids of acme's things in their paths.
func (w *world) operations(t *testing.T) (list []operation, byID []operation) {
	t.Helper()
	res, err := http.Get(w.url + "/openapi.json")
	require.NoError(t, err)
	defer func() { require.NoError(t, res.Body.Close()) }()
	var doc struct {
		Paths map[string]map[string]struct {
			RequestBody json.RawMessage `json:"requestBody"`
		}
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&doc))
	for path, methods := range doc.Paths {
		parts := strings.Split(path, "/") // "", "v1", "devices", ...
		thing := parts[2]
		if thing == "me" {
			thing = parts[3]
		}
		filled := strings.NewReplacer("{id}", w.ids[thing], "{user}", "alice", "{app}", "shop", "{channel}", "fcm", "{tenant}", "acme").Replace(path)
		for method, o := range methods {
			op := operation{strings.ToUpper(method), filled, len(o.RequestBody) > 0}
			list = append(list, op)
			if strings.Contains(path, "{id}") {
				require.NotEmpty(t, w.ids[thing], "the world has no %s", thing)
				byID = append(byID, op)
			}
		}
	}
	require.Greater(t, len(list), 40)
	require.Greater(t, len(byID), 15)
	return list, byID
}

// refusal is what an operation must answer to a key or token.
func (o operation) refusal(key string, status int, code string) bad {
	x := bad{method: o.method, path: o.path, header: map[string]string{"Authorization": "Bearer " + key}, status: status, code: code}
	if key == "" {
		x.header["Authorization"] = ""
	}
	if o.hasBody {
		x.body = "{}"
	}
	return x
}

func (o operation) isUsers() bool    { return strings.HasPrefix(o.path, "/v1/me/") }
func (o operation) isOperator() bool { return strings.HasPrefix(o.path, "/v1/tenants") }

// isAlso: an operator need not name a tenant, and then means the installation.
func (o operation) isAlso() bool { return strings.HasPrefix(o.path, "/v1/jobs") }

// TestAccess tries every operation with every key that may not call it.
// One after the other: each looks whether a table has changed.
func TestAccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.lists()
	all, byID := w.operations(t)
	old := w.b.run("key", "create", "--tenant", "acme", "--scopes", "admin", "--expires", "15s")
	mistyped := w.key[:len(w.key)-1] + map[bool]string{true: "A", false: "Q"}[!strings.HasSuffix(w.key, "A")]
	none := w.b.run("key", "create", "--tenant", "acme", "--scopes", "webhooks")
	devices := w.b.run("key", "create", "--tenant", "acme", "--scopes", "devices")
	before["/v1/keys"] = w.lists()["/v1/keys"]

	t.Run("no key", func(t *testing.T) {
		for _, o := range all {
			w.refused(t, o.refusal("", 401, "unauthenticated"))
			w.refused(t, o.refusal(secretMark, 401, "unauthenticated"))
			w.refused(t, o.refusal(mistyped, 401, "unauthenticated"))
		}
	})
	t.Run("wrong scope", func(t *testing.T) {
		for _, o := range all {
			switch {
			case o.isUsers():
				w.refused(t, o.refusal(w.key, 401, "unauthenticated")) // a token is wanted, not a key
			case o.isOperator():
				w.refused(t, o.refusal(w.key, 403, "forbidden"))
			case strings.HasPrefix(o.path, "/v1/endpoints"):
				w.refused(t, o.refusal(devices, 403, "forbidden"))
			default:
				w.refused(t, o.refusal(none, 403, "forbidden"))
			}
		}
	})
	t.Run("another tenant's ids", func(t *testing.T) {
		token, err := w.otherSigner.token("alice")
		require.NoError(t, err)
		for _, o := range byID {
			key := w.other
			if o.isUsers() {
				key = token
			}
			w.refused(t, o.refusal(key, 404, "not_found"))
			if o.isUsers() {
				continue
			}
			x := o.refusal(w.operator, 404, "not_found")
			x.header["Carillon-Tenant"] = "other"
			w.refused(t, x)
			x.header["Carillon-Tenant"] = "nobody"
			w.refused(t, x)
			x = o.refusal(w.other, 404, "not_found") // a key of one tenant that names another
			x.header["Carillon-Tenant"] = "acme"
			w.refused(t, x)
		}
	})
	t.Run("an operator names no tenant", func(t *testing.T) {
		for _, o := range byID {
			switch {
			case o.isAlso():
				w.refused(t, o.refusal(w.operator, 404, "not_found")) // it is acme's, not the installation's
			case !o.isUsers():
				x := o.refusal(w.operator, 422, "invalid")
				x.field = "Carillon-Tenant"
				w.refused(t, x)
			}
		}
	})
	t.Run("tokens", func(t *testing.T) { w.badTokens(t, all) })
	t.Run("expired key", func(t *testing.T) {
		eventually(t, func() bool {
			status, _ := call(t.Context(), http.MethodGet, w.url+"/v1/devices", old, nil, nil)
			return status == http.StatusUnauthorized
		}, "the key expires")
		for _, o := range all {
			w.refused(t, o.refusal(old, 401, "unauthenticated"))
		}
	})
	require.Equal(t, before, w.lists())
}

// badTokens: what is no token of a user of this tenant.
func (w *world) badTokens(t *testing.T, all []operation) {
	claims := func(change jwt.MapClaims) jwt.MapClaims {
		c := jwt.MapClaims{"sub": "alice", "aud": "carillon", "exp": time.Now().Add(5 * time.Minute).Unix()}
		for name, v := range change {
			if c[name] = v; v == nil {
				delete(c, name)
			}
		}
		return c
	}
	sign := func(method jwt.SigningMethod, kid string, key any, c jwt.MapClaims) string {
		t.Helper()
		token := jwt.NewWithClaims(method, c)
		token.Header["kid"] = kid
		text, err := token.SignedString(key)
		require.NoError(t, err)
		return text
	}
	id, secret := w.signer.ID, []byte(w.signer.Secret)
	status, err := call(t.Context(), http.MethodGet, w.url+"/v1/me/devices", sign(jwt.SigningMethodHS256, id, secret, claims(nil)), nil, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, "so that it is not the claims that the others are refused for")
	for name, token := range map[string]string{
		"unsigned":             sign(jwt.SigningMethodNone, id, jwt.UnsafeAllowNoneSignatureType, claims(nil)),
		"another algorithm":    sign(jwt.SigningMethodHS384, id, secret, claims(nil)),
		"another secret":       sign(jwt.SigningMethodHS256, id, []byte(secretMark), claims(nil)),
		"another tenant's key": sign(jwt.SigningMethodHS256, id, []byte(w.otherSigner.Secret), claims(nil)),
		"an API key's id":      sign(jwt.SigningMethodHS256, w.ids["keys"], secret, claims(nil)),
		"expired":              sign(jwt.SigningMethodHS256, id, secret, claims(jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()})),
		"without an end":       sign(jwt.SigningMethodHS256, id, secret, claims(jwt.MapClaims{"exp": nil})),
		"without a near end":   sign(jwt.SigningMethodHS256, id, secret, claims(jwt.MapClaims{"exp": time.Now().AddDate(10, 0, 0).Unix()})),
		"for another server":   sign(jwt.SigningMethodHS256, id, secret, claims(jwt.MapClaims{"aud": "elsewhere"})),
		"without a user":       sign(jwt.SigningMethodHS256, id, secret, claims(jwt.MapClaims{"sub": ""})),
	} {
		for _, o := range all {
			if o.isUsers() {
				t.Run(name+" "+o.String(), func(t *testing.T) { w.refused(t, o.refusal(token, 401, "unauthenticated")) })
			}
		}
	}
	mallory, err := w.signer.token("mallory")
	require.NoError(t, err)
	w.refused(t, operation{method: "DELETE", path: "/v1/me/devices/" + w.ids["devices"]}.refusal(mallory, 404, "not_found"))
	x := operation{method: "GET", path: "/v1/me/devices"}.refusal(mallory, 403, "forbidden")
	x.header["Origin"] = "https://unlisted.example"
	w.refused(t, x)
}
