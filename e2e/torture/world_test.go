package torture_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// world is a tenant with users on all channels, on a fleet, before simulated
// providers that fail now and then.
type world struct {
	*client
	sim       *simulator.Simulator
	users     []string
	hooks     map[string]string // endpoint id -> name of its receiver
	poisoned  map[string]bool   // ids of targets whose provider rejects every message
	doomed    map[string]bool   // ids of devices whose provider says that they are gone
	pausable  []string          // what can be paused and resumed: paths
	rightKey  map[string]any    // FCM's credential
	wrongKey  map[string]any    // one that Google does not know
	vapid     string
	doomCount int
}

// makeTenant makes a tenant and a key for it, before any node runs.
func makeTenant(t *testing.T, f *fleet, name string) (key string) {
	t.Helper()
	f.command(t, "tenant", "create", name)
	return f.command(t, "key", "create", "--tenant", name, "--scopes", "admin")
}

const usersCount = 6

func newWorld(t *testing.T, c *client, sim *simulator.Simulator) *world {
	t.Helper()
	w := &world{client: c, sim: sim, hooks: map[string]string{}, poisoned: map[string]bool{}, doomed: map[string]bool{}}
	fast := map[string]any{"delays_ms": []int{20, 40, 80, 150, 300, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500}, "floor_ms": 0}
	w.must(t, "PUT", "/v1/tenant", map[string]any{"settings": map[string]any{"retry": map[string]any{
		"fcm": fast, "apns": fast, "webpush": fast, "webhook": fast}}}, nil)
	credential := func(channel string, in any, out any) {
		var made struct {
			ID string `json:"id"`
		}
		w.must(t, "PUT", "/v1/apps/default/credentials/"+channel, in, &made)
		w.pausable = append(w.pausable, "/v1/credentials/"+made.ID)
		if out != nil {
			w.must(t, "GET", "/v1/credentials/"+made.ID, nil, out)
		}
	}
	apns := sim.APNs()
	w.rightKey = map[string]any{"service_account": json.RawMessage(sim.FCM().ServiceAccount)}
	w.wrongKey = wrongKey(t, sim.FCM().ServiceAccount)
	credential("fcm", w.rightKey, nil)
	credential("apns", map[string]any{"key": string(apns.P8), "key_id": apns.KeyID, "team_id": apns.TeamID, "topics": []string{apns.Topic}}, nil)
	var pair struct {
		Settings struct {
			PublicKey string `json:"public_key"`
		} `json:"settings"`
	}
	credential("webpush", map[string]any{"generate": true, "subject": "mailto:ops@example.com"}, &pair)
	w.vapid = pair.Settings.PublicKey
	require.NotEmpty(t, w.vapid)
	for i := range usersCount {
		w.addUser(t, i)
	}
	w.addEndpoint(t, "all", map[string]any{"event_types": []string{"order.*", "once.*"}})
	w.addEndpoint(t, "bound", map[string]any{"event_types": []string{"*"}, "user": w.users[3]})
	return w
}

// wrongKey is a service account with a key of nobody's.
func wrongKey(t testing.TB, account []byte) map[string]any {
	t.Helper()
	var members map[string]any
	require.NoError(t, json.Unmarshal(account, &members))
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	members["private_key"] = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return map[string]any{"service_account": members}
}

// addUser registers a device on every push channel. User 4's phone is one that
// FCM takes no message for.
func (w *world) addUser(t testing.TB, i int) {
	t.Helper()
	user := fmt.Sprintf("user-%d", i)
	w.users = append(w.users, user)
	token := fmt.Sprintf("phone-%d", i)
	if i == 4 {
		token = simulator.Token(simulator.FCM, simulator.Fault{Status: http.StatusBadRequest, Reason: "PAYLOAD_TOO_LARGE"}, i)
	}
	id := w.addDevice(t, map[string]any{"user": user, "channel": "fcm", "token": token})
	w.poisoned[id] = i == 4
	w.addDevice(t, map[string]any{"user": user, "channel": "apns", "token": w.sim.APNs().NewToken(), "environment": "production"})
	sub, err := w.sim.Push().NewSubscription(w.vapid)
	require.NoError(t, err)
	sub.Endpoint = w.fleet.wires["push"].Through(t, sub.Endpoint)
	w.addDevice(t, map[string]any{"user": user, "channel": "webpush", "subscription": sub})
}

func (w *world) addDevice(t testing.TB, in map[string]any) (id string) {
	t.Helper()
	var made struct {
		ID string `json:"id"`
	}
	w.must(t, "PUT", "/v1/devices", in, &made)
	require.NotEmpty(t, made.ID)
	return made.ID
}

func (w *world) addEndpoint(t testing.TB, receiver string, in map[string]any) {
	t.Helper()
	in["url"] = w.fleet.wires["webhook"].Through(t, w.sim.Webhook().URL(receiver))
	var made struct {
		ID string `json:"id"`
	}
	w.must(t, "POST", "/v1/endpoints", in, &made)
	w.hooks[made.ID] = receiver
	w.pausable = append(w.pausable, "/v1/endpoints/"+made.ID)
}

// doom registers a phone that FCM says is gone, for a user of its own.
func (w *world) doom(t testing.TB) (user string) {
	t.Helper()
	w.doomCount++
	user = fmt.Sprintf("gone-%d", w.doomCount)
	token := simulator.Token(simulator.FCM, simulator.Fault{Status: http.StatusNotFound, Reason: "UNREGISTERED"}, w.doomCount)
	w.doomed[w.addDevice(t, map[string]any{"user": user, "channel": "fcm", "token": token})] = true
	return user
}

// seen is how often a provider accepted a delivery. A webhook's receiver is told
// the notification: it is what a receiver removes duplicates by.
func (w *world) seen(d *stored) int {
	if receiver, ok := w.hooks[d.Target]; ok {
		return w.sim.Accepted(simulator.Webhook, receiver, d.Notification)
	}
	return w.sim.Accepted(simulator.Channel(d.Channel), "", d.ID)
}

// resumeAll ends every pause, whoever made it.
func (w *world) resumeAll(t testing.TB) {
	t.Helper()
	w.must(t, "PUT", "/v1/apps/default/credentials/fcm?verify=false", w.rightKey, nil) // and no wrong key stays
	for _, path := range w.pausable {
		var now struct {
			Status string `json:"status"`
		}
		// What was refused is in doubt by itself, and a resume lets it try at once.
		if w.must(t, "GET", path, nil, &now); now.Status != "active" || strings.Contains(path, "credentials") {
			w.must(t, "POST", path+"/resume", nil, nil)
		}
	}
}
