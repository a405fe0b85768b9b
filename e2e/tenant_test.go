package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tenant calls the API of a server as a tenant's backend does.
type tenant struct {
	t        testing.TB
	url, key string
}

// newTenant makes the tenant acme with a key that may do everything.
func newTenant(t testing.TB, b *binary) tenant {
	t.Helper()
	b.run("tenant", "create", "acme")
	return tenant{t: t, url: b.url, key: b.run("key", "create", "--tenant", "acme", "--scopes", "admin")}
}

// do makes a call that works.
func (a tenant) do(method, path string, in, out any) {
	a.t.Helper()
	var raw bytes.Buffer
	if in != nil {
		require.NoError(a.t, json.NewEncoder(&raw).Encode(in))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := call(ctx, method, a.url+path, a.key, &raw, out)
	require.NoError(a.t, err)
}

// device is a part of what the API shows of a device.
type device struct {
	ID             string `json:"id"`
	App            string `json:"app"`
	Channel        string `json:"channel"`
	Address        string `json:"address"`
	InstallationID string `json:"installation_id"`
	OS             string `json:"os"`
	Locale         string `json:"locale"`
	TimeZone       string `json:"time_zone"`
	VAPIDKey       string `json:"vapid_key"`
	Status         string `json:"status"`
}

func (a tenant) devices(user string) []device {
	a.t.Helper()
	var list struct{ Data []device }
	a.do("GET", "/v1/users/"+user+"/devices", nil, &list)
	return list.Data
}

// accepted is the answer to a notification.
type accepted struct {
	ID         string
	Deliveries []struct{ ID, Target, Channel string }
	Skips      []struct{ User, Channel, Reason string }
}

func (a tenant) send(n map[string]any) (got accepted) {
	a.t.Helper()
	a.do("POST", "/v1/notifications", n, &got)
	return got
}

// sendOnce sends with an idempotency key.
func (a tenant) sendOnce(n map[string]any, key string, out any) {
	a.t.Helper()
	raw, err := json.Marshal(n)
	require.NoError(a.t, err)
	req, err := http.NewRequest(http.MethodPost, a.url+"/v1/notifications", bytes.NewReader(raw))
	require.NoError(a.t, err)
	req.Header = http.Header{"Authorization": {"Bearer " + a.key}, "Content-Type": {"application/json"}, "Idempotency-Key": {key}}
	res, err := http.DefaultClient.Do(req)
	require.NoError(a.t, err)
	defer func() { require.NoError(a.t, res.Body.Close()) }()
	require.Equal(a.t, http.StatusAccepted, res.StatusCode)
	require.NoError(a.t, json.NewDecoder(res.Body).Decode(out))
}

// eventually looks again until ok.
func eventually(t testing.TB, ok func() bool, what string) {
	t.Helper()
	require.Eventually(t, ok, 30*time.Second, 20*time.Millisecond, what)
}
