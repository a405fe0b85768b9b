package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

func TestSend(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	k.phone("alice", "alices-phone")
	twice := k.phone("bob", simulator.Token(simulator.FCM, simulator.Fault{Status: 503, Times: 2}, 1))

	out := k.must("send", "--user", "alice", "--user", "bob", "--user", "carol", "--title", "Hello", "--body", "It works.",
		"--data", `{"order":7}`, "--ttl", "600", "--urgent", "--wait", "20s")
	require.Regexp(t, `^ntf_\w+ accepted: 2 deliveries, 1 skipped\n  skipped carol: \w+\n`, out)
	require.Regexp(t, `(?m)^dlv_\w+ +fcm +alice +sent +1 +fcm.accepted +projects/`, out)
	require.Regexp(t, `(?m)^dlv_\w+ +fcm +bob +sent +3 `, out)
	arrived := k.sim.Arrivals(simulator.Filter{Target: "alices-phone"})
	require.Len(t, arrived, 1)
	require.Contains(t, string(arrived[0].Payload), `"It works."`)

	out = k.must("send", "--device", twice, "--title", "No wait")
	require.Regexp(t, `^ntf_\w+ accepted: 1 deliveries, 0 skipped$`, out)

	out = k.must("send", "--user", "nobody", "--title", "x", "--wait", "1m")
	require.Contains(t, out, "0 deliveries, 1 skipped", "there is nothing to wait for")
}

// TestSendWaitsNoLongerThanAsked: the table shows how far it came.
func TestSendWaitsNoLongerThanAsked(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	k.phone("alice", "alices-phone")
	var credential struct {
		Data []struct{ ID, Channel string }
	}
	k.do("GET", "/v1/credentials", nil, &credential)
	for _, c := range credential.Data {
		if c.Channel == "fcm" {
			k.do("POST", "/v1/credentials/"+c.ID+"/pause", map[string]any{"reason": "key is being replaced"}, nil)
		}
	}
	code, out, errs := k.command("send", "--user", "alice", "--title", "Hello", "--wait", "300ms")
	require.Equal(t, exitFailed, code, "scripts learn that it is not sent")
	require.Contains(t, errs, "1 of 1 deliveries are not sent")
	require.Regexp(t, `alice +(held|pending)`, out)
	eventually(t, func() bool { return k.deliveries()[0].State == "held" }, "the delivery is held")

	holds := k.must("holds")
	require.Regexp(t, `(?m)^hld_\w+ +credential +crd_\w+ +\w+ +1 +\S+ +POST /v1/credentials/crd_\w+/resume +key is being replaced`, holds)
	k.do("POST", regexp.MustCompile(`/v1/credentials/\S+`).FindString(holds), nil, nil)
	eventually(t, func() bool { return k.deliveries()[0].State == "sent" }, "the call that holds shows releases it")
	require.NotContains(t, k.must("holds"), "hld_")
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	k.phone("alice", "alices-phone")
	var preview struct {
		DryRun     bool              `json:"dry_run"`
		Deliveries []json.RawMessage `json:"deliveries"`
		Payloads   []struct {
			Channel string
			Payload json.RawMessage
		}
	}
	require.NoError(t, json.Unmarshal([]byte(k.must("send", "--user", "alice", "--title", "Hello", "--link", "https://example.com/orders/7", "--dry-run")), &preview))
	require.True(t, preview.DryRun)
	require.Len(t, preview.Deliveries, 1)
	require.Equal(t, "fcm", preview.Payloads[0].Channel)
	require.Contains(t, string(preview.Payloads[0].Payload), "https://example.com/orders/7")
	require.Empty(t, k.deliveries())
	for _, a := range k.sim.Arrivals(simulator.Filter{}) {
		require.NotEqual(t, "alices-phone", a.Target, "only the credentials were verified")
	}
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	k.phone("alice", "alices-phone")
	k.phone("bob", "bobs-tablet")
	k.sim.SetFault("bobs-tablet", simulator.Fault{Status: 400, Reason: "INVALID_ARGUMENT"})
	require.NotContains(t, k.must("dead", "list"), "dlv_")
	code, _, errs := k.command("send", "--user", "alice", "--user", "bob", "--title", "Hello", "--wait", "20s")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "1 of 2 deliveries are not sent")

	list := k.must("dead", "list", "--reason", "rejected", "--channel", "fcm", "--user", "bob", "--limit", "200")
	row := regexp.MustCompile(`(?m)^(dlv_\w+) +fcm +bob +rejected +fcm\.\w+ +\d{4}-`).FindStringSubmatch(list)
	require.NotNil(t, row, list)
	require.NotContains(t, k.must("dead", "list", "--user", "alice"), "dlv_")

	k.sim.ClearFault("bobs-tablet")
	require.Equal(t, row[1]+" is pending again", k.must("dead", "replay", row[1]))
	eventually(t, func() bool { return k.sim.Accepted(simulator.FCM, "", row[1]) == 1 }, "it is sent again")
	eventually(t, func() bool { return !strings.Contains(k.must("dead", "list"), "dlv_") }, "it is dead no more")

	code, _, errs = k.command("dead", "replay", row[1])
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "(conflict)")
	code, _, errs = k.command("dead", "replay", "dlv_x/../../keys")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "(not_found)")
}

func TestReplayOfManyAndJobs(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	for _, name := range []string{"one", "two"} {
		k.phone("bob", "bobs-"+name)
		k.sim.SetFault("bobs-"+name, simulator.Fault{Status: 400, Reason: "INVALID_ARGUMENT"})
	}
	code, _, _ := k.command("send", "--user", "bob", "--type", "order.shipped", "--title", "Hello", "--wait", "20s")
	require.Equal(t, exitFailed, code)
	for _, name := range []string{"one", "two"} {
		k.sim.ClearFault("bobs-" + name)
	}

	require.Equal(t, "2 dead letters would be replayed", k.must("dead", "replay", "--reason", "rejected", "--channel", "fcm", "--app", "default", "--user", "bob",
		"--type", "order.shipped", "--since", "2020-01-01T00:00:00Z", "--until", "2099-01-01T00:00:00Z", "--dry-run"))
	require.Equal(t, "0 dead letters would be replayed", k.must("dead", "replay", "--user", "alice", "--dry-run"))
	require.Contains(t, k.must("dead", "list"), "dlv_")
	require.NotContains(t, k.must("jobs", "list"), "job_")

	row := regexp.MustCompile(`^(job_\w+) replays 2 dead letters; `).FindStringSubmatch(k.must("dead", "replay", "--reason", "rejected", "--per-second", "500"))
	require.NotNil(t, row)
	eventually(t, func() bool { return strings.Contains(k.must("jobs", "show", row[1]), `"state": "done"`) }, "the job is done")
	eventually(t, func() bool { return !strings.Contains(k.must("dead", "list"), "dlv_") }, "none is dead any more")
	require.Regexp(t, `(?m)^`+row[1]+` +dead_letter_replay +done +2 of 2 \(100%\) +2 +0 +0 +\d{4}-`, k.must("jobs", "list", "--state", "done", "--kind", "dead_letter_replay", "--limit", "5"))
	require.NotContains(t, k.must("jobs", "list", "--state", "running"), "job_")

	code, _, errs := k.command("jobs", "cancel", row[1])
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "This job is done already. (conflict)")
	require.NotContains(t, k.must("jobs", "list", "--key", k.operator), "job_", "the installation's own")
	require.Contains(t, k.must("jobs", "list", "--key", k.operator, "--tenant", "acme"), row[1])

	for _, args := range [][]string{{}, {"--dry-run"}, {"dlv_x", "dlv_y"}, {"dlv_x", "--reason", "rejected"}, {"dlv_x", "--dry-run"}} {
		code, _, errs := k.command(append([]string{"dead", "replay"}, args...)...)
		require.Equal(t, exitUsage, code, errs)
	}
	code, _, errs = k.command("dead", "replay", "--reason", "gone", "--per-second", "0")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "filter.reason: is not a reason of a dead letter")
	require.Contains(t, errs, "per_second: must be 1 to 1000")
}

// TestAJobCanBeCanceled from the command line, while it has most of its way ahead.
func TestAJobCanBeCanceled(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	for _, name := range []string{"one", "two", "three"} {
		k.phone("bob", "bobs-"+name)
		k.sim.SetFault("bobs-"+name, simulator.Fault{Status: 400, Reason: "INVALID_ARGUMENT"})
	}
	code, _, _ := k.command("send", "--user", "bob", "--title", "Hello", "--wait", "20s")
	require.Equal(t, exitFailed, code)
	id, _, _ := strings.Cut(k.must("dead", "replay", "--user", "bob", "--per-second", "1"), " ")
	require.Regexp(t, `^`+id+` is canceled after [012] of 3 \(\d+%\)$`, k.must("jobs", "cancel", id))
	require.Contains(t, k.must("jobs", "list"), "canceled")
	require.Regexp(t, `is canceled after`, k.must("jobs", "cancel", id), "it may be repeated")
}

func TestErrorsOfTheAPIAreShown(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	code, out, errs := k.command("send", "--user", "alice", "--title", "x", "--ttl", "-1", "--image", "http://x.example/i.png")
	require.Equal(t, exitFailed, code)
	require.Empty(t, out)
	require.Contains(t, errs, "(invalid)\n")
	require.Regexp(t, `(?m)^  - ttl: must be`, errs)
	require.Regexp(t, `(?m)^  - image: must be an https URL$`, errs)

	code, _, errs = k.command("holds", "--key", "crl_wrong")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "(unauthenticated)")

	code, _, errs = k.command("holds", "--key", k.operator)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "Carillon-Tenant")
	k.must("holds", "--key", k.operator, "--tenant", "acme")
}

// TestAnswersThatAreNone: what stands between may answer anything.
func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	for body, says := range map[string]string{"<html>": "502 Bad Gateway", `{"status":502}`: "502 Bad Gateway", `{"detail":"No.","code":"nope"}`: "No. (nope)"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = fmt.Fprint(w, body)
		}))
		code, _, errs := command(t, []string{"CARILLON_URL=" + s.URL + "/", "CARILLON_KEY=k"}, "holds")
		s.Close()
		require.Equal(t, exitFailed, code)
		require.Contains(t, errs, says)
	}
}

// TestClientFlagsAreTheSameEverywhere: no command has a flag of its own in the
// place of --url, --key or --tenant.
func TestClientFlagsAreTheSameEverywhere(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"send", "--title", "x"}, {"dead", "list"}, {"dead", "replay", "dlv_x"}, {"dead", "replay", "--reason", "rejected"}, {"holds"},
		{"jobs", "list"}, {"jobs", "show", "job_x"}, {"jobs", "cancel", "job_x"}} {
		var path, authorization, tenant string
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			path, authorization, tenant = r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Carillon-Tenant")
			w.WriteHeader(http.StatusTeapot)
		}))
		code, _, errs := command(t, nil, append(args, "--url", s.URL, "--key", "k", "--tenant", "acme")...)
		s.Close()
		require.Equal(t, exitFailed, code, errs)
		require.Contains(t, errs, "418")
		require.Regexp(t, "^/v1/", path)
		require.Equal(t, "Bearer k", authorization)
		require.Equal(t, "acme", tenant)
	}
}

func TestDevicesAreListedAndRestored(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	k.phone("alice", "alices-phone")
	require.Contains(t, k.must("send", "--user", "alice", "--title", "Hello", "--wait", "20s"), "sent")
	k.sim.SetFault("alices-phone", simulator.Fault{Status: 404, Reason: "UNREGISTERED"})
	code, _, _ := k.command("send", "--user", "alice", "--title", "Hello", "--wait", "20s")
	require.Equal(t, exitFailed, code)
	k.sim.ClearFault("alices-phone")

	retired := k.must("devices", "list", "--status", "retired", "--user", "alice", "--channel", "fcm", "--app", "default")
	require.Regexp(t, `(?m)^dev_\w+ +alice +default +fcm +retired +fcm\.unregistered +\d{4}-`, retired)
	require.NotContains(t, k.must("devices", "suspects"), "dev_")
	require.Equal(t, "1 devices would be restored", k.must("devices", "restore", "--reason", "fcm.unregistered", "--dry-run"))
	require.Equal(t, "0 devices would be restored", k.must("devices", "restore", "--status", "suspect", "--reason", "fcm.unregistered", "--dry-run"))
	row := regexp.MustCompile(`^(job_\w+) restores 1 devices; `).FindStringSubmatch(k.must("devices", "restore", "--reason", "fcm.unregistered", "--since", "2020-01-01T00:00:00Z"))
	require.NotNil(t, row)
	eventually(t, func() bool { return strings.Contains(k.must("jobs", "list", "--state", "done"), row[1]) }, "the job is done")
	require.Contains(t, k.must("devices", "list", "--status", "active"), "dev_")
	require.Contains(t, k.must("send", "--user", "alice", "--title", "Hello", "--wait", "20s"), "sent")

	id := regexp.MustCompile(`dev_\w+`).FindString(retired)
	require.Regexp(t, `(?s)^AT +EVENT +USER +REASON +CREDENTIAL +ACTOR\n\S+ +restored +asked_for +key_\w+\n`+
		`\S+ +retired +fcm\.unregistered +crd_\w+ version 1 +engine\n\S+ +registered +alice +key_\w+$`, k.must("devices", "history", id))
	require.Equal(t, "0 suspect devices would be retired", k.must("devices", "retire", "--app", "default", "--dry-run"))

	code, _, errs := k.command("devices", "restore", "--status", "suspect")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "--reason")
}
