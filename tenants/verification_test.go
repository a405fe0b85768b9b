package tenants_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// TestVerificationStatesHaveNames: the numbers are stored, the names are in the API.
func TestVerificationStatesHaveNames(t *testing.T) {
	t.Parallel()
	for s, name := range map[tenants.VerificationState]string{0: "not_checked", 1: "verified", 2: "unverified", 3: "refused", 4: "not_verifiable"} {
		require.Equal(t, name, s.String())
	}
	require.Equal(t, "verification(9)", tenants.VerificationState(9).String())
}

func putFCM(ctx context.Context, b *bench, tenant ids.ID, secret string) (tenants.Credential, error) {
	return b.PutCredential(ctx, tenant, tenants.PutCredential{Channel: channels.FCM, Input: json.RawMessage(`{"secret":"` + secret + `"}`)}, "cli")
}

// TestARefusedCredentialIsNotStored: the current version stays.
func TestARefusedCredentialIsNotStored(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c, err := putFCM(t.Context(), b, 7, "good")
	require.NoError(t, err)
	require.Equal(t, tenants.Verified, c.Verification.State)
	b.fcm.ask = func(context.Context) channels.Result {
		return channels.Result{Outcome: channels.Denied, Code: "fcm.credential_refused", Detail: "The key is deleted."}
	}
	_, err = putFCM(t.Context(), b, 7, "bad")
	var p *problem.Error
	require.ErrorAs(t, err, &p)
	require.Equal(t, problem.CredentialRefused, p.Code)
	require.Equal(t, "key", p.Fields[0].Path)
	require.Contains(t, p.Fields[0].Detail, "fcm.credential_refused")
	now, err := b.Credential(t.Context(), 7, c.ID)
	require.NoError(t, err)
	require.Equal(t, 1, now.Version)

	asked := b.fcm.asked
	c, err = b.PutCredential(t.Context(), 7, tenants.PutCredential{Channel: channels.FCM, Input: json.RawMessage(`{"secret":"bad"}`), Unverified: true}, "cli")
	require.NoError(t, err, "who says so is believed")
	require.Equal(t, 2, c.Version)
	require.Equal(t, tenants.NotChecked, c.Verification.State)
	require.Equal(t, asked, b.fcm.asked)
}

// TestWhatCannotBeAskedIsStored: whatever keeps the provider from answering.
func TestWhatCannotBeAskedIsStored(t *testing.T) {
	t.Parallel()
	for i, o := range []channels.Outcome{channels.Retry, channels.Throttled, channels.Interrupted, channels.Rejected} {
		b := setup(t)
		b.fcm.ask = func(context.Context) channels.Result { return channels.Result{Outcome: o, Code: "transport.timeout"} }
		c, err := putFCM(t.Context(), b, 7, fmt.Sprint(i))
		require.NoError(t, err)
		require.Equal(t, tenants.Unverified, c.Verification.State, o)
		require.Equal(t, "transport.timeout", c.Verification.Code)
	}
}

// TestAProviderThatHangsHoldsUpItsTenantAlone: for as long as it is asked, and others
// not at all.
func TestAProviderThatHangsHoldsUpItsTenantAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		hangs := func(ctx context.Context) channels.Result {
			<-ctx.Done()
			return channels.Result{Outcome: channels.Retry, Code: "transport.timeout"}
		}
		b.fcm.ask = hangs
		start := time.Now()
		first := make(chan error, 1)
		go func() { _, err := putFCM(t.Context(), b, 7, "a"); first <- err }()
		synctest.Wait()
		second := make(chan error, 1)
		go func() {
			time.Sleep(time.Second)
			_, err := putFCM(t.Context(), b, 7, "b")
			second <- err
		}()
		_, err := b.PutCredential(t.Context(), 8, tenants.PutCredential{Channel: channels.APNs, Input: json.RawMessage(`{}`)}, "cli")
		require.NoError(t, err)
		require.Zero(t, time.Since(start), "another tenant waits for nothing")
		require.NoError(t, <-first)
		require.Equal(t, tenants.VerifyWithin, time.Since(start))
		require.NoError(t, <-second, "its own next one waits for its turn")
		require.Equal(t, 2*tenants.VerifyWithin, time.Since(start), "and has all of its time then")
	})
}

// TestWhoWaitsForATurnHasNotBeenAnswered: of many puts at once each is verified, or is
// told that it was not.
func TestWhoWaitsForATurnHasNotBeenAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.fcm.ask = func(ctx context.Context) channels.Result {
			select {
			case <-time.After(2 * time.Second):
				return channels.Result{Outcome: channels.Denied, Code: "fcm.credential_refused"}
			case <-ctx.Done():
				return channels.Result{Outcome: channels.Retry, Code: "transport.timeout"}
			}
		}
		errs := make(chan error, 12)
		for i := range cap(errs) {
			go func() { _, err := putFCM(t.Context(), b, 7, fmt.Sprint(i)); errs <- err }()
		}
		codes := map[problem.Code]int{}
		for range cap(errs) {
			var p *problem.Error
			require.ErrorAs(t, <-errs, &p)
			codes[p.Code]++
			if p.Code == problem.Throttled {
				require.Equal(t, tenants.VerifyWithin, p.RetryAfter)
				require.Contains(t, p.Detail, "verify=false")
			}
		}
		require.Equal(t, map[problem.Code]int{problem.CredentialRefused: 3, problem.Throttled: 9}, codes)
		require.Zero(t, b.store.count("PutCredential"), "what was not answered is not stored")
	})
}

// TestAVerificationOnRequestIsToldWhatItCanDo: it has no verify=false.
func TestAVerificationOnRequestIsToldWhatItCanDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		c, err := putFCM(t.Context(), b, 7, "a")
		require.NoError(t, err)
		b.fcm.ask = func(ctx context.Context) channels.Result {
			<-ctx.Done()
			return channels.Result{Outcome: channels.Retry, Code: "transport.timeout"}
		}
		ends := make(chan error, 3)
		for range cap(ends) {
			go func() { _, err := b.VerifyCredential(t.Context(), 7, c.ID); ends <- err }()
		}
		refused := 0
		for range cap(ends) {
			if p, ok := errors.AsType[*problem.Error](<-ends); ok {
				refused++
				require.Equal(t, problem.Throttled, p.Code)
				require.NotContains(t, p.Detail, "verify=false")
			}
		}
		require.Positive(t, refused)
	})
}

// TestWhoHasLeftPutsNothing: a provider that was not asked, or not heard to its end,
// has not failed to answer.
func TestWhoHasLeftPutsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	gone, leave := context.WithCancel(t.Context())
	b.fcm.ask = func(context.Context) channels.Result {
		leave()
		return channels.Result{Outcome: channels.Interrupted}
	}
	for i := range 100 { // of two ways that are open, select takes either
		_, err := putFCM(gone, b, 7, "a")
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 1, b.fcm.asked, "the %dth time", i)
	}
	require.Zero(t, b.store.count("PutCredential"))
	b.fcm.ask = nil
	_, err := putFCM(t.Context(), b, 7, "a")
	require.NoError(t, err, "every turn was given back")
}

// TestARehearsalSaysWhatTheProviderSays: and stores nothing.
func TestARehearsalSaysWhatTheProviderSays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := tenants.PutCredential{Channel: channels.FCM, Input: json.RawMessage(`{"secret":"a"}`)}
	id, v, err := b.RehearseCredential(t.Context(), 7, in)
	require.NoError(t, err)
	require.Zero(t, id)
	require.Equal(t, tenants.Verified, v.State)
	c, err := putFCM(t.Context(), b, 7, "first")
	require.NoError(t, err)
	b.fcm.ask = func(context.Context) channels.Result {
		return channels.Result{Outcome: channels.Retry, Code: "transport.timeout"}
	}
	id, v, err = b.RehearseCredential(t.Context(), 7, in)
	require.NoError(t, err)
	require.Equal(t, c.ID, id)
	require.Equal(t, "transport.timeout", v.Code)
	in.Unverified = true
	_, v, err = b.RehearseCredential(t.Context(), 7, in)
	require.NoError(t, err)
	require.Equal(t, tenants.NotChecked, v.State)
	require.Equal(t, 1, b.store.count("PutCredential"))
	require.Zero(t, b.store.count("NoteVerification"))
}

// TestACredentialIsVerifiedOnRequest: as every day, but now.
func TestACredentialIsVerifiedOnRequest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c, err := putFCM(t.Context(), b, 7, "a")
	require.NoError(t, err)
	b.clock.forward(time.Hour)
	verify := func(r channels.Result) tenants.Credential {
		t.Helper()
		b.fcm.ask = func(context.Context) channels.Result { return r }
		got, err := b.VerifyCredential(t.Context(), 7, c.ID)
		require.NoError(t, err)
		require.Equal(t, b.store.creds[c.ID], got, "it is written down")
		require.Equal(t, 1, got.Version)
		return got
	}
	got := verify(channels.Result{Outcome: channels.Retry, Code: "transport.timeout", Detail: "No answer."})
	require.Equal(t, tenants.Verification{State: tenants.Unverified, Code: "transport.timeout", Detail: "No answer.", At: b.clock.now()}, got.Verification)
	require.Empty(t, b.refused)
	require.Equal(t, tenants.Refused, verify(channels.Result{Outcome: channels.Denied, Detail: "No."}).Verification.State)
	require.Equal(t, []string{"true 1 No."}, b.refused, "it is held")
	_, err = b.PauseCredential(t.Context(), 7, c.ID, "No.", "engine")
	require.NoError(t, err)
	got = verify(channels.Result{Outcome: channels.Accepted})
	require.Equal(t, tenants.Verified, got.Verification.State)
	require.Equal(t, tenants.CredentialActive, got.Status, "what held it is over")
	require.Equal(t, 1, b.store.count("RecoverCredential"), "which leaves a person's pause")

	b.store.opened[c.ID] = channels.Credential{Version: 1, Secret: []byte("damaged")}
	require.Equal(t, tenants.Unreadable(b.clock.now()), verify(channels.Result{}).Verification)

	_, err = b.VerifyCredential(t.Context(), 7, 99)
	require.Equal(t, problem.NotFound, problem.CodeOf(err))
	b.store.creds[c.ID] = tenants.Credential{ID: c.ID, Channel: channels.WebPush}
	_, err = b.VerifyCredential(t.Context(), 7, c.ID)
	require.Equal(t, problem.Conflict, problem.CodeOf(err), "a channel that is switched off")
}

// TestACredentialIsDoubted: a timeout says nothing against one that has worked.
func TestACredentialIsDoubted(t *testing.T) {
	t.Parallel()
	asked := time.Unix(1000, 0)
	before, after := asked.Add(-time.Hour), asked.Add(time.Hour)
	for _, x := range []struct {
		state  tenants.VerificationState
		proven time.Time
		want   bool
	}{
		{tenants.NotChecked, time.Time{}, false}, {tenants.Verified, time.Time{}, false}, {tenants.NotVerifiable, time.Time{}, false},
		{tenants.Unverified, time.Time{}, true}, {tenants.Unverified, before, false}, {tenants.Unverified, after, false},
		{tenants.Refused, time.Time{}, true}, {tenants.Refused, before, true}, {tenants.Refused, after, false},
	} {
		c := tenants.Credential{ProvenAt: x.proven, Verification: tenants.Verification{State: x.state, At: asked}}
		require.Equal(t, x.want, c.Doubted(), "%s %s", x.state, x.proven)
	}
}

func TestNoVersionBeforeTheFirst(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c, err := putFCM(t.Context(), b, 7, "one")
	require.NoError(t, err)
	for _, version := range []int{0, 1, 2} {
		_, err = b.RollbackCredential(t.Context(), 7, c.ID, tenants.Rollback{Version: version}, "key_1")
		require.Equal(t, problem.Conflict, problem.CodeOf(err))
	}
}

func TestARollbackIsVerifiedToo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, s := range []string{"one", "two", "three"} {
		_, err := putFCM(t.Context(), b, 7, s)
		require.NoError(t, err)
	}
	list, err := b.Credentials(t.Context(), 7)
	require.NoError(t, err)
	id := list[0].ID
	_, err = b.RollbackCredential(t.Context(), 7, id, tenants.Rollback{}, "key_1")
	require.Equal(t, problem.Conflict, problem.CodeOf(err), "none is fit to go back to")
	b.store.back = 2
	c, err := b.RollbackCredential(t.Context(), 7, id, tenants.Rollback{}, "key_1")
	require.NoError(t, err)
	require.Equal(t, "back to 2", c.Reason)
	require.Equal(t, 4, c.Version)
	require.Equal(t, tenants.Verified, c.Verification.State)
	require.Equal(t, "credential.rollback", b.store.made()[3].Action)
	for _, version := range []int{-1, 4, 9} {
		_, err = b.RollbackCredential(t.Context(), 7, id, tenants.Rollback{Version: version}, "key_1")
		require.Contains(t, faults(t, err), "version")
	}
	_, err = b.RollbackCredential(t.Context(), 7, id, tenants.Rollback{Version: 1}, "key_1")
	require.Equal(t, problem.Conflict, problem.CodeOf(err))
	b.fcm.ask = func(context.Context) channels.Result { return channels.Result{Outcome: channels.Denied} }
	_, err = b.RollbackCredential(t.Context(), 7, id, tenants.Rollback{}, "key_1")
	require.Equal(t, problem.CredentialRefused, problem.CodeOf(err))
	_, err = b.RollbackCredential(t.Context(), 7, id, tenants.Rollback{Unverified: true}, "key_1")
	require.NoError(t, err)
}
