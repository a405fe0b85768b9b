package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// TestOneRefusedDeviceCostsNobodyElse: one subscription that its push service refuses,
// and one token that FCM knows nothing of, beside others at the same providers.
func TestOneRefusedDeviceCostsNobodyElse(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	for i := range 6 {
		b, err := k.sim.Push().NewSubscription(k.pushKey)
		require.NoError(t, err)
		endpoint := b.Endpoint
		if i == 0 {
			endpoint += "/sim-401"
		}
		k.do("PUT", "/v1/devices", map[string]any{"user": fmt.Sprint("browser-", i), "subscription": map[string]any{"endpoint": endpoint,
			"keys": map[string]any{"p256dh": b.Keys.P256dh, "auth": b.Keys.Auth}}}, nil)
	}
	k.phone("odd", "odds-phone")
	k.phone("alice", "alices-phone")
	k.sim.SetFault("odds-phone", simulator.Fault{Status: 403, Reason: "PERMISSION_DENIED"})
	k.must("send", "--user", "browser-0", "--title", "Hello")
	k.must("send", "--user", "odd", "--title", "Hello")
	eventually(t, func() bool {
		doubted := 0
		for _, d := range k.deliveries() {
			if d.Reason == "in_doubt" {
				doubted++
			}
		}
		return doubted == 2
	}, "both are in doubt")
	for i := range 5 {
		require.Contains(t, k.must("send", "--user", fmt.Sprint("browser-", i+1), "--title", "Hello", "--wait", "20s"), "sent")
	}
	require.Contains(t, k.must("send", "--user", "alice", "--title", "Hello", "--wait", "20s"), "sent")
	require.NotContains(t, k.must("holds"), "credential_denied")
	require.Regexp(t, `(?m)refusal`, k.must("holds"))
}

// TestARevokedAccountIsNoticedAtOnce: with a single device, because FCM is asked.
func TestARevokedAccountIsNoticedAtOnce(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	k.phone("alice", "alices-phone")
	k.sim.SetFault("fcm", simulator.Fault{Status: 403, Reason: "PERMISSION_DENIED"})
	k.must("send", "--user", "alice", "--title", "Hello")
	eventually(t, func() bool {
		list := k.deliveries()
		return len(list) == 1 && list[0].Reason == "credential_denied"
	}, "the credential is held")
	require.Contains(t, k.must("holds"), "credential_denied")
}

// TestACredentialIsRehearsedBeforeItIsStored: what the provider refuses is not, and
// the version before goes on; a provider that is down does not keep anybody from
// putting one; and a person goes back.
func TestACredentialIsRehearsedBeforeItIsStored(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	k.phone("alice", "alices-phone")
	b, err := os.ReadFile(filepath.Join(k.dir, "fcm.json"))
	require.NoError(t, err)
	type credential struct {
		ID           string
		Version      int
		Verification struct {
			Status, Code string
			Verified     bool
		}
	}
	var list listAnswer[credential]
	k.do("GET", "/v1/credentials", nil, &list)
	statuses := map[string]int{}
	for _, c := range list.Data {
		statuses[c.Verification.Status]++
	}
	require.Equal(t, map[string]int{"verified": 2, "not_verifiable": 1}, statuses)

	k.sim.SetFault("oauth", simulator.Fault{Status: 401})
	const path = "/v1/apps/default/credentials/fcm"
	err = k.api.call(t.Context(), "PUT", path, json.RawMessage(b), nil)
	require.ErrorContains(t, err, "credential_refused")
	require.ErrorContains(t, err, "service_account")
	var c credential
	k.do("PUT", path+"?verify=false", json.RawMessage(b), &c)
	require.Equal(t, 1, c.Version, "what is there already is no new version")
	k.sim.SetFault("oauth", simulator.Fault{Status: 503})
	k.do("PUT", path, json.RawMessage(b), &c)
	require.Equal(t, "unverified", c.Verification.Status)
	require.False(t, c.Verification.Verified)
	k.sim.ClearFault("")
	require.Contains(t, k.must("send", "--user", "alice", "--title", "Hello", "--wait", "20s"), "sent")

	var versions listAnswer[struct {
		Version       int
		Current, Kept bool
		Actor         string
	}]
	k.do("GET", "/v1/credentials/"+c.ID+"/versions", nil, &versions)
	require.Len(t, versions.Data, 1)
	require.True(t, versions.Data[0].Current && versions.Data[0].Kept)
	require.Regexp(t, "^key_", versions.Data[0].Actor)
	err = k.api.call(t.Context(), "POST", "/v1/credentials/"+c.ID+"/rollback", nil, nil)
	require.ErrorContains(t, err, "there is none to go back to")
}

// TestCredentialsAreListedAndGoneBackTo, with what a person at a terminal sees.
func TestCredentialsAreListedAndGoneBackTo(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	list := k.must("credentials", "list")
	require.Regexp(t, `(?m)^crd_\w+ +default +fcm +1 +active +verified`, list)
	require.Regexp(t, `(?m)^crd_\w+ +default +webpush +B\S+ +1 +active +not_verifiable +100 %`, list)
	apns := regexp.MustCompile(`(?m)^(crd_\w+) +default +apns`).FindStringSubmatch(list)[1]
	b, err := os.ReadFile(filepath.Join(k.dir, "apns.json"))
	require.NoError(t, err)
	var in map[string]any
	require.NoError(t, json.Unmarshal(b, &in))
	in["topics"] = append(in["topics"].([]any), "com.example.another")
	k.do("PUT", "/v1/apps/default/credentials/apns", in, nil)
	require.Contains(t, k.must("credentials", "rollback", apns), "is at version 3 now, active, verified")
	require.Regexp(t, `(?s)VERSION +STATE.*\n3 +current .*\n2 +replaced .*\n1 +replaced `, k.must("credentials", "versions", apns))
	_, _, errs := k.command("credentials", "rollback", apns)
	require.Contains(t, errs, "no version to go back to", "twice does not lead back to where it was")
	require.Regexp(t, `^crd_\w+: verified`, k.must("credentials", "verify", apns))
	webpush := regexp.MustCompile(`(?m)^(crd_\w+) +default +webpush`).FindStringSubmatch(list)[1]
	require.Regexp(t, `^crd_\w+: not_verifiable, A push service tells nothing`, k.must("credentials", "verify", webpush))
	fcm := regexp.MustCompile(`(?m)^(crd_\w+) +default +fcm`).FindStringSubmatch(list)[1]
	k.sim.SetFault("oauth", simulator.Fault{Status: 401})
	require.Regexp(t, `^crd_\w+: refused, fcm.credential_refused, `, k.must("credentials", "verify", fcm))
	require.Contains(t, k.must("holds"), fcm, "and held from now on")
	k.sim.ClearFault("")
	require.Regexp(t, `^crd_\w+: verified`, k.must("credentials", "verify", fcm))
	require.Regexp(t, `(?m)^crd_\w+ +default +fcm +1 +active +verified`, k.must("credentials", "list"))
	code, _, errs := k.command("credentials", "rollback", apns, "--version", "7")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "version: must be one before the newest, which is 3")
}
