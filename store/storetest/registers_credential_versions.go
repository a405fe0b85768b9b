package storetest

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func credentialVersionTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Versions/AreListedAndGoneBackTo":  versionsAreListed,
		"Versions/OfTheCompromisedAreGone": compromisedVersions,
		"Versions/APersonsPauseSurvives":   pauseSurvives,
		"Versions/GoBackByThemselves":      versionsGoBack,
		"Versions/WithoutAWayBackSaySo":    versionsStuck,
		"Versions/ResumingVerifiesNothing": resumeBelievesNobody,
		"Versions/ARefusedOneSaysTheWay":   deniedSaysTheWayBack,
		"Versions/BackAndFurtherBack":      goesFurtherBack,
		"Versions/AreBounded":              versionsAreBounded,
		"Versions/KeptOnesLoseTheirSecret": keptVersionsLoseTheirSecret,
		"Versions/AreVerifiedInTurn":       verifiedInTurn,
		"Versions/TenantsHaveTheirTurns":   tenantsAreVerifiedInTurn,
	}
}

// putSecret puts a version of the FCM credential.
func (k *kit) putSecret(secret string, o tenants.PutOptions) tenants.Credential {
	k.Helper()
	c, err := k.Store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: "default", Channel: channels.FCM},
		channels.Credential{Settings: json.RawMessage(`{"of":"` + secret + `"}`), Secret: []byte(secret)}, o, change("credential.put"))
	k.ok(err)
	return c
}

func versionsAreListed(k *kit) {
	now := k.Clock.Now()
	seen := tenants.Verification{State: tenants.Unverified, Code: "transport.timeout", Detail: "No answer.", At: now}
	k.putSecret("one", tenants.PutOptions{})
	c := k.putSecret("two", tenants.PutOptions{AutoRollback: true, Verification: seen})
	seen.At = c.Verification.At
	require.Equal(k, seen, c.Verification)
	require.Equal(k, now, c.Verification.At.UTC())
	back, err := k.Store.RollbackCredential(k.ctx, k.tenant, c.ID, 1, tenants.Verification{State: tenants.Verified, At: now}, change("credential.rollback"))
	k.ok(err)
	require.Equal(k, 3, back.Version)
	require.JSONEq(k, `{"of":"one"}`, string(back.Settings))
	require.Equal(k, tenants.Verified, back.Verification.State)
	opened, err := k.Store.OpenCredential(k.ctx, k.tenant, c.ID)
	k.ok(err)
	require.Equal(k, "one", string(opened.Secret))
	opened, err = k.Store.OpenVersion(k.ctx, k.tenant, c.ID, 2)
	k.ok(err)
	require.Equal(k, "two", string(opened.Secret))

	list, err := k.Store.CredentialVersions(k.ctx, k.tenant, c.ID)
	k.ok(err)
	require.Len(k, list, 3)
	for i, v := range list {
		require.Equal(k, 3-i, v.Version)
		require.Equal(k, i == 0, v.Current)
		require.Equal(k, i == 1, v.AutoRollback)
		require.True(k, v.Kept)
		require.Equal(k, "test", v.Actor)
	}
	k.ok(k.Store.NoteVerification(k.ctx, k.tenant, c.ID, 3, tenants.Verification{State: tenants.Refused, Code: "x", At: now}))
	k.ok(k.Store.NoteVerification(k.ctx, k.tenant, c.ID, 2, tenants.Verification{State: tenants.Refused, Code: "old", At: now}))
	list, err = k.Store.CredentialVersions(k.ctx, k.tenant, c.ID)
	k.ok(err)
	require.Equal(k, "x", list[0].Verification.Code)
	require.Equal(k, "transport.timeout", list[1].Verification.Code, "only the newest is asked about")

	mine := k.tenant
	k.tenant = k.newTenant("other")
	_, err = k.Store.CredentialVersions(k.ctx, k.tenant, c.ID)
	k.code(problem.NotFound, err)
	_, err = k.Store.OpenVersion(k.ctx, k.tenant, c.ID, 1)
	k.code(problem.NotFound, err)
	_, err = k.Store.RollbackCredential(k.ctx, k.tenant, c.ID, 1, tenants.Verification{}, change("x"))
	k.code(problem.NotFound, err)
	k.ok(k.Store.NoteVerification(k.ctx, k.tenant, c.ID, 3, tenants.Verification{Code: "stolen", At: now}))
	got, err := k.Store.Credential(k.ctx, mine, c.ID)
	k.ok(err)
	require.Equal(k, "x", got.Verification.Code)
}

func compromisedVersions(k *kit) {
	k.putSecret("one", tenants.PutOptions{})
	c := k.putSecret("two", tenants.PutOptions{Compromised: true})
	_, err := k.Store.OpenVersion(k.ctx, k.tenant, c.ID, 1)
	k.code(problem.Conflict, err)
	_, err = k.Store.RollbackCredential(k.ctx, k.tenant, c.ID, 1, tenants.Verification{}, change("x"))
	k.code(problem.Conflict, err)
	list, err := k.Store.CredentialVersions(k.ctx, k.tenant, c.ID)
	k.ok(err)
	require.True(k, list[0].Kept)
	require.False(k, list[1].Kept)
	require.Equal(k, 2, list[0].Version, "nothing was half done")
}

func pauseSurvives(k *kit) {
	c := k.putSecret("one", tenants.PutOptions{})
	row, _ := k.hold(1, delivery.Hold{Subject: c.ID, Version: 1}, delivery.HoldCredential, delivery.CredentialDenied, "fcm.denied")
	k.is(row, delivery.Held, delivery.CredentialDenied)
	c = k.putSecret("two", tenants.PutOptions{})
	require.Equal(k, tenants.CredentialActive, c.Status, "what the provider refused is tried again")
	k.ended(1000)
	_, err := k.Store.PauseCredential(k.ctx, k.tenant, c.ID, "not now", change("credential.pause"))
	k.ok(err)
	c = k.putSecret("three", tenants.PutOptions{})
	require.Equal(k, tenants.CredentialPaused, c.Status)
	require.Equal(k, "not now", c.Reason)
	require.Equal(k, delivery.Open, k.holds()[0].Ending)
	_, err = k.Store.ResumeCredential(k.ctx, k.tenant, c.ID, change("credential.resume"))
	k.ok(err)
	c, err = k.Store.Credential(k.ctx, k.tenant, c.ID)
	k.ok(err)
	require.Equal(k, tenants.CredentialActive, c.Status)
}

func versionsGoBack(k *kit) {
	c := k.putSecret("one", tenants.PutOptions{})
	goBack := func(version int) int {
		k.Helper()
		asked, to, err := k.Store.GoBack(k.ctx, k.tenant, c.ID, version, k.Clock.Now())
		k.ok(err)
		require.Equal(k, to > 0, asked)
		return to
	}
	k.putSecret("two", tenants.PutOptions{})
	require.Zero(k, goBack(2), "nobody asked for it")
	k.putSecret("three", tenants.PutOptions{AutoRollback: true})
	require.Zero(k, goBack(2), "not that version")
	opened, err := k.Store.RefuseCredential(k.ctx, delivery.Hold{Tenant: k.tenant, Scope: delivery.HoldCredential, Subject: c.ID, Version: 3,
		Reason: delivery.CredentialDenied, Detail: "No.", Since: k.Clock.Now()})
	k.ok(err)
	require.True(k, opened)
	require.Contains(k, k.holds()[0].Detail, "/rollback goes back to version 2")
	require.Equal(k, 2, goBack(3))
	require.Zero(k, goBack(3), "once")
	got, err := k.Store.Credential(k.ctx, k.tenant, c.ID)
	k.ok(err)
	require.Equal(k, 4, got.Version)
	require.Equal(k, tenants.CredentialActive, got.Status)
	require.JSONEq(k, `{"of":"two"}`, string(got.Settings))
	require.Equal(k, delivery.Resume, k.holds()[0].Ending)
	require.Zero(k, goBack(4), "what it went back to does not")
}

// versionsStuck: who asked for a way back that there is not is told so.
func versionsStuck(k *kit) {
	c := k.putSecret("one", tenants.PutOptions{AutoRollback: true})
	_, err := k.Store.RefuseCredential(k.ctx, delivery.Hold{Tenant: k.tenant, Scope: delivery.HoldCredential, Subject: c.ID, Version: 1,
		Reason: delivery.CredentialDenied, Detail: "No.", Since: k.Clock.Now()})
	k.ok(err)
	const says = "No. Version 1 was put with auto_rollback, but there is no version to go back to."
	require.Equal(k, says, k.holds()[0].Detail)
	got, err := k.Store.Credential(k.ctx, k.tenant, c.ID)
	k.ok(err)
	require.Equal(k, says, got.Reason)
	asked, to, err := k.Store.GoBack(k.ctx, k.tenant, c.ID, 1, k.Clock.Now())
	k.ok(err)
	require.True(k, asked)
	require.Zero(k, to)
}

// resumeBelievesNobody: that a person resumes a credential does not make its provider
// take it.
func resumeBelievesNobody(k *kit) {
	c := k.putSecret("one", tenants.PutOptions{})
	k.ok(k.Store.NoteVerification(k.ctx, k.tenant, c.ID, 1, tenants.Verification{State: tenants.Refused, Code: "fcm.denied", At: k.Clock.Now()}))
	_, err := k.Store.RefuseCredential(k.ctx, delivery.Hold{Tenant: k.tenant, Scope: delivery.HoldCredential, Subject: c.ID, Version: 1,
		Reason: delivery.CredentialDenied, Detail: "No.", Since: k.Clock.Now()})
	k.ok(err)
	c, err = k.Store.ResumeCredential(k.ctx, k.tenant, c.ID, change("credential.resume"))
	k.ok(err)
	require.Equal(k, tenants.CredentialActive, c.Status)
	require.Equal(k, tenants.Refused, c.Verification.State)
	require.Equal(k, "fcm.denied", c.Verification.Code)
}

// back goes back as somebody does who names no version, and says to what.
func (k *kit) back(id ids.ID) string {
	k.Helper()
	to, err := k.Store.WayBack(k.ctx, k.tenant, id)
	k.ok(err)
	if to == 0 {
		return ""
	}
	_, err = k.Store.RollbackCredential(k.ctx, k.tenant, id, to, tenants.Verification{}, change("credential.rollback"))
	k.ok(err)
	c, err := k.Store.OpenCredential(k.ctx, k.tenant, id)
	k.ok(err)
	return string(c.Secret)
}

// goesFurtherBack: whoever goes back twice does not mean to be where he was before.
func goesFurtherBack(k *kit) {
	put := func(secret string) ids.ID {
		k.Clock.Advance(time.Second)
		return k.putSecret(secret, tenants.PutOptions{}).ID
	}
	put("one")
	put("two")
	c := put("bad")
	require.Equal(k, "two", k.back(c))
	require.Equal(k, "one", k.back(c))
	require.Empty(k, k.back(c), "there is nothing before")

	put("new")
	require.Equal(k, "one", k.back(c))
	put("new")
	put("one") // by hand: the usual accident
	require.Equal(k, "new", k.back(c), "to what was before that, though its content is older")

	put("refused")
	newest, err := k.Store.Credential(k.ctx, k.tenant, c)
	k.ok(err)
	k.ok(k.Store.NoteVerification(k.ctx, k.tenant, c, newest.Version, tenants.Verification{State: tenants.Refused, At: k.Clock.Now()}))
	put("next")
	require.Equal(k, "new", k.back(c), "not to what its provider refused")

	mine := k.tenant
	k.tenant = k.newTenant("other")
	_, err = k.Store.WayBack(k.ctx, k.tenant, c)
	k.code(problem.NotFound, err)
	k.tenant = mine
	k.putSecret("compromised", tenants.PutOptions{Compromised: true})
	require.Empty(k, k.back(c), "not to what is destroyed")
}

// versionsAreBounded: the newest are kept, and the one to go back to.
func versionsAreBounded(k *kit) {
	id := k.putSecret("good", tenants.PutOptions{}).ID
	bad := tenants.Verification{State: tenants.Refused, At: k.Clock.Now()}
	for i := range tenants.MaxVersions + 20 {
		k.Clock.Advance(time.Second)
		k.putSecret(fmt.Sprint("bad ", i), tenants.PutOptions{Verification: bad})
	}
	versions := func() []tenants.CredentialVersion {
		k.Helper()
		list, err := k.Store.CredentialVersions(k.ctx, k.tenant, id)
		k.ok(err)
		require.Len(k, k.Dump(k.T)["credential_versions"].Rows, len(list))
		return list
	}
	list := versions()
	require.Len(k, list, tenants.MaxVersions+1)
	require.Equal(k, tenants.MaxVersions+21, list[0].Version)
	require.Equal(k, 22, list[tenants.MaxVersions-1].Version)
	require.Equal(k, 1, list[tenants.MaxVersions].Version)
	require.Equal(k, "good", k.back(id))
	list = versions()
	require.Len(k, list, tenants.MaxVersions, "its content is the newest, so that the first is not needed any more")
	for range 3 {
		k.putSecret("bad 3", tenants.PutOptions{Verification: bad})
		require.Equal(k, "good", k.back(id))
	}
	require.Len(k, versions(), tenants.MaxVersions)

	k.Exec(k.T, "UPDATE credential_versions SET version=version-1000 WHERE credential_id=? AND version<?", int64(id), 100) // as from before there was a limit
	before := len(k.Dump(k.T)["credential_versions"].Rows)
	k.putSecret("another", tenants.PutOptions{})
	require.Less(k, len(k.Dump(k.T)["credential_versions"].Rows), before)
}

// keptVersionsLoseTheirSecret: after its time, though the version that replaced it is
// not there any more.
func keptVersionsLoseTheirSecret(k *kit) {
	id := k.putSecret("good", tenants.PutOptions{}).ID
	for i := range tenants.MaxVersions + 1 {
		k.putSecret(fmt.Sprint("bad ", i), tenants.PutOptions{Verification: tenants.Verification{State: tenants.Refused, At: k.Clock.Now()}})
	}
	k.Clock.Advance(31 * day)
	_, err := k.Store.DropReplacedCredentials(k.ctx, k.Clock.Now().Add(-30*day), 1000)
	k.ok(err)
	list, err := k.Store.CredentialVersions(k.ctx, k.tenant, id)
	k.ok(err)
	require.Equal(k, 1, list[len(list)-1].Version)
	for _, v := range list {
		require.Equal(k, v.Current, v.Kept, "version %d", v.Version)
	}
}

// deniedSaysTheWayBack: a new version that its first send finds refused says at once
// which call goes back, in the hold and at the credential; one that has worked does not.
func deniedSaysTheWayBack(k *kit) {
	k.putSecret("one", tenants.PutOptions{})
	c := k.putSecret("two", tenants.PutOptions{})
	call := " Version 2 has never worked: POST /v1/credentials/" + c.ID.Format(ids.Credential) + "/rollback goes back to version 1."
	deny := func() (detail, reason string) {
		k.Helper()
		_, res := k.hold(1, delivery.Hold{Subject: c.ID, Version: 2}, delivery.HoldCredential, delivery.CredentialDenied, "fcm.denied",
			func(f *delivery.Finish) { f.Hold.Version = 0 })
		require.True(k, res.Opened)
		got, err := k.Store.Credential(k.ctx, k.tenant, c.ID)
		k.ok(err)
		return k.holds()[0].Detail, got.Reason
	}
	detail, reason := deny()
	require.Equal(k, "said so"+call, detail)
	require.Equal(k, detail, reason)
	_, err := k.Store.ResumeCredential(k.ctx, k.tenant, c.ID, change("credential.resume"))
	k.ok(err)
	k.ended(10)
	k.accepted(1)
	for _, row := range k.claim() {
		k.finish(delivery.Finish{Row: row.Row, Transition: delivery.Transition{State: delivery.Sent, Spent: 1}, Attempt: k.attempt(row.Row, channels.Accepted, "ok"),
			Credential: c.ID, Version: 2, Prove: true})
	}
	detail, _ = deny()
	require.Equal(k, "said so", detail)
}

func verifiedInTurn(k *kit) {
	fcm, apns := k.credential(channels.FCM, ""), k.credential(channels.APNs, "")
	k.credential(channels.WebPush, "key")
	asked := []channels.Kind{channels.FCM, channels.APNs}
	due := func() []ids.ID {
		k.Helper()
		now := k.Clock.Now()
		list, err := k.Store.CredentialsToVerify(k.ctx, asked, now.Add(-24*time.Hour), now.Add(-time.Hour), 10)
		k.ok(err)
		return idsOf(list, func(c tenants.Credential) ids.ID { return c.ID })
	}
	note := func(c tenants.Credential, s tenants.VerificationState) {
		k.Helper()
		k.ok(k.Store.NoteVerification(k.ctx, k.tenant, c.ID, 1, tenants.Verification{State: s, At: k.Clock.Now()}))
	}
	require.Empty(k, due())
	k.Clock.Advance(25 * time.Hour)
	require.ElementsMatch(k, []ids.ID{fcm.ID, apns.ID}, due())
	note(fcm, tenants.Verified)
	require.Equal(k, []ids.ID{apns.ID}, due())
	asked = []channels.Kind{channels.FCM}
	require.Empty(k, due(), "of the channels that the server has")
	asked = nil
	require.Empty(k, due())

	asked = []channels.Kind{channels.FCM, channels.APNs}
	note(apns, tenants.Unverified)
	require.Empty(k, due())
	k.Clock.Advance(time.Hour + time.Second)
	require.Equal(k, []ids.ID{apns.ID}, due(), "what could not be asked is asked again soon")
	note(apns, tenants.Refused)
	k.Clock.Advance(time.Hour + time.Second)
	require.Equal(k, []ids.ID{apns.ID}, due(), "and so is what is refused and in use")
	_, err := k.Store.PauseCredential(k.ctx, k.tenant, apns.ID, "", change("credential.pause"))
	k.ok(err)
	require.Empty(k, due(), "nobody waits for one that is paused")
}

// tenantsAreVerifiedInTurn: many of one keep no other out of the list.
func tenantsAreVerifiedInTurn(k *kit) {
	var mine []ids.ID
	for _, q := range []string{"", "production", "sandbox"} {
		mine = append(mine, k.credential(channels.APNs, q).ID)
	}
	k.tenant = k.newTenant("other")
	k.Clock.Advance(time.Hour)
	other := k.credential(channels.FCM, "").ID
	k.Clock.Advance(25 * time.Hour)
	now := k.Clock.Now()
	list, err := k.Store.CredentialsToVerify(k.ctx, []channels.Kind{channels.FCM, channels.APNs}, now.Add(-24*time.Hour), now.Add(-time.Hour), 3)
	k.ok(err)
	require.Equal(k, []ids.ID{mine[0], other, mine[1]}, idsOf(list, func(c tenants.Credential) ids.ID { return c.ID }))
}
