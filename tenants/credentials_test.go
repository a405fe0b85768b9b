package tenants_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func TestACredentialIsAVersionOfTheOneInItsPlace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	put := func(app string, kind channels.Kind, input string) (tenants.Credential, error) {
		return b.PutCredential(t.Context(), 7, tenants.PutCredential{App: app, Channel: kind, Input: json.RawMessage(input)}, "cli")
	}
	first, err := put("", channels.FCM, `{"project":"p"}`)
	require.NoError(t, err)
	require.Equal(t, "default", first.App)
	require.Equal(t, 1, first.Version)
	again, err := put("default", channels.FCM, ` {"project": "p"}`)
	require.NoError(t, err)
	require.Equal(t, 1, again.Version, "what is there already is not put again")
	second, err := put("default", channels.FCM, `{"project":"p","secret":"another"}`)
	require.NoError(t, err)
	require.Equal(t, first.ID, second.ID)
	require.Equal(t, 2, second.Version)
	_, err = put("default", channels.FCM, `{"project":"q"}`)
	require.Equal(t, problem.CredentialRefused, problem.CodeOf(err))
	_, err = put("second", channels.FCM, `{"project":"q"}`)
	require.NoError(t, err, "another app has its own")
	require.Equal(t, []ids.ID{7, 7, 7}, b.changed)
	require.Equal(t, []string{"", "", `{"project":"p"}`, "", `{"project":"p"}`, "", `{"project":"p"}`, ""}, b.fcm.priors)

	both, err := put("default", channels.APNs, `{"project":"t"}`)
	require.NoError(t, err)
	sandbox, err := put("default", channels.APNs, `{"slot":"sandbox","project":"u"}`)
	require.NoError(t, err, "one for an environment stands beside one for both")
	require.NotEqual(t, both.ID, sandbox.ID)
	require.Equal(t, "sandbox", sandbox.Qualifier)

	for range 2 {
		made, err := put("default", channels.APNs, `{"generate":true}`)
		require.NoError(t, err)
		require.Equal(t, 1, made.Version)
	}
	require.Equal(t, 2, b.apns.generated, "no pair is made and thrown away")
}

func TestNewCredentialsAreChecked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, x := range map[string]struct {
		in   tenants.PutCredential
		want []string
	}{
		"bad app, no channel": {tenants.PutCredential{App: "A", Input: json.RawMessage(`{}`)}, []string{"app", "channel"}},
		"webhook":             {tenants.PutCredential{Channel: channels.Webhook, Input: json.RawMessage(`{}`)}, []string{"channel"}},
		"switched off":        {tenants.PutCredential{Channel: channels.WebPush, Input: json.RawMessage(`{}`)}, []string{"channel"}},
		"nothing to go back to": {tenants.PutCredential{Channel: channels.FCM, Input: json.RawMessage(`{}`), AutoRollback: true, Compromised: true},
			[]string{"auto_rollback"}},
		"what never goes back": {tenants.PutCredential{Channel: channels.WebPush, Input: json.RawMessage(`{}`), AutoRollback: true},
			[]string{"auto_rollback", "channel"}},
		"the channel says no": {tenants.PutCredential{Channel: channels.FCM, Input: json.RawMessage(`{`)}, []string{""}},
	} {
		_, err := b.PutCredential(t.Context(), 7, x.in, "cli")
		require.Equal(t, x.want, paths(faults(t, err)), name)
	}
	for i := range ids.ID(tenants.MaxCredentials) {
		b.store.creds[i+1] = tenants.Credential{Tenant: 7, ID: i + 1, App: "x", Channel: channels.FCM}
	}
	_, err := b.PutCredential(t.Context(), 7, tenants.PutCredential{Channel: channels.FCM, Input: json.RawMessage(`{}`)}, "cli")
	require.Equal(t, problem.Conflict, problem.CodeOf(err))
	_, _, err = b.RehearseCredential(t.Context(), 7, tenants.PutCredential{Channel: channels.FCM, Input: json.RawMessage(`{}`)})
	require.Equal(t, problem.Conflict, problem.CodeOf(err), "a rehearsal says the same")
	require.Empty(t, b.changed)
}

func TestPauseResumeDelete(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c, err := b.PutCredential(t.Context(), 7, tenants.PutCredential{Channel: channels.FCM, Input: json.RawMessage(`{}`)}, "cli")
	require.NoError(t, err)
	_, err = b.PauseCredential(t.Context(), 7, c.ID, "a\x00b", "cli")
	require.Equal(t, []string{"reason"}, paths(faults(t, err)))
	paused, err := b.PauseCredential(t.Context(), 7, c.ID, "leaked", "key_1")
	require.NoError(t, err)
	require.Equal(t, tenants.CredentialPaused, paused.Status)
	resumed, err := b.ResumeCredential(t.Context(), 7, c.ID, "key_1")
	require.NoError(t, err)
	require.Equal(t, tenants.CredentialActive, resumed.Status)
	got, err := b.Credential(t.Context(), 7, c.ID)
	require.NoError(t, err)
	require.Equal(t, resumed, got)
	require.NoError(t, b.DeleteCredential(t.Context(), 7, c.ID, "key_1"))
	list, err := b.Credentials(t.Context(), 7)
	require.NoError(t, err)
	require.Empty(t, list)
	require.Equal(t, []ids.ID{7, 7, 7, 7}, b.changed)
	require.Equal(t, tenants.Change{Actor: "key_1", Action: "credential.delete"}, b.store.made()[3])
}

func TestAnAppIsDeleted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.PutApp(t.Context(), 7, "shop", "key_1"))
	job, err := b.DeleteApp(t.Context(), 7, "shop", "key_1")
	require.NoError(t, err)
	require.Equal(t, ids.ID(99), job)
	require.Equal(t, tenants.Change{Actor: "key_1", Action: "app.delete"}, b.store.made()[1])
	require.Equal(t, []ids.ID{7}, b.changed, "so that nothing more is sent with its credentials")
	_, err = b.DeleteApp(t.Context(), 7, tenants.DefaultApp, "key_1")
	require.Equal(t, problem.Conflict, problem.CodeOf(err))
	require.Equal(t, 1, b.store.count("DeleteApp"))
}

// TestWhatIsCompromisedIsDestroyedByPuttingAgain: who hears of it after the new one was
// put says so by putting it again, which makes a version before which all is destroyed.
func TestWhatIsCompromisedIsDestroyedByPuttingAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := putFCM(t.Context(), b, 7, "new")
	require.NoError(t, err)
	c, err := b.PutCredential(t.Context(), 7, tenants.PutCredential{Channel: channels.FCM, Input: json.RawMessage(`{"secret":"new"}`), Compromised: true}, "cli")
	require.NoError(t, err)
	require.Equal(t, 2, c.Version)
	require.True(t, b.store.options.Compromised)
}

// TestARehearsalRefusesAnotherPair: as the put does, unless it says that it rotates.
func TestARehearsalRefusesAnotherPair(t *testing.T) {
	t.Parallel()
	b := setup(t)
	registry := tenants.NewRegistry(tenants.Options{Store: b.store, IDs: ids.NewGenerator(2, b.clock.now), Now: b.clock.now,
		Channels: map[channels.Kind]channels.Channel{channels.WebPush: &keyring{kind: channels.WebPush}}})
	in := func(app, input string) tenants.PutCredential {
		return tenants.PutCredential{App: app, Channel: channels.WebPush, Input: json.RawMessage(input)}
	}
	rehearse := func(app, input string) error {
		_, _, err := registry.RehearseCredential(t.Context(), 7, in(app, input))
		return err
	}
	require.NoError(t, rehearse("default", `{"generate":true}`))
	_, err := registry.PutCredential(t.Context(), 7, in("default", `{"slot":"one"}`), "cli")
	require.NoError(t, err)
	err = rehearse("default", `{"generate":true}`)
	var p *problem.Error
	require.ErrorAs(t, err, &p)
	require.Equal(t, problem.Conflict, p.Code)
	require.Equal(t, "rotate", p.Fields[0].Path)
	require.NoError(t, rehearse("default", `{"generate":true,"rotate":true}`))
	require.NoError(t, rehearse("default", `{"slot":"one"}`), "it is there")
	require.NoError(t, rehearse("shop", `{"generate":true}`), "another app")
}

// TestPutsOfACredentialTakeTurns: two at a time would both take themselves for the
// first version.
func TestPutsOfACredentialTakeTurns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	registry := tenants.NewRegistry(tenants.Options{Store: unhurried{b.store}, IDs: ids.NewGenerator(2, b.clock.now), Now: b.clock.now,
		Channels: map[channels.Kind]channels.Channel{channels.FCM: b.fcm}})
	const n = 20
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			_, err := registry.PutCredential(t.Context(), 7, tenants.PutCredential{Channel: channels.FCM, Input: json.RawMessage(fmt.Sprintf(`{"secret":"%d"}`, i))}, "cli")
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	list, err := b.Credentials(t.Context(), 7)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, n, list[0].Version)
}

// unhurried lets others go first after each look.
type unhurried struct{ *memory }

func (u unhurried) Credentials(ctx context.Context, tenant ids.ID) ([]tenants.Credential, error) {
	list, err := u.memory.Credentials(ctx, tenant)
	runtime.Gosched()
	return list, err
}

// TestPuttingAgainResumesWhatTheProviderRefused: but a person's pause stands, which
// the store knows.
func TestPuttingAgainResumesWhatTheProviderRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	put := func() (tenants.Credential, error) {
		return b.PutCredential(t.Context(), 7, tenants.PutCredential{Channel: channels.FCM, Input: json.RawMessage(`{}`)}, "cli")
	}
	c, err := put()
	require.NoError(t, err)
	_, err = b.PauseCredential(t.Context(), 7, c.ID, "refused", "engine")
	require.NoError(t, err)
	c, err = put()
	require.NoError(t, err)
	require.Equal(t, 1, c.Version)
	require.Equal(t, tenants.CredentialActive, c.Status)
	require.Equal(t, 1, b.store.count("RecoverCredential"))
	_, err = put()
	require.NoError(t, err)
	require.Equal(t, 1, b.store.count("RecoverCredential"))
}

// TestPutsAreOneAtATime: of two first versions each would take itself for the only one.
// What is decided on is read and written under the lock, and asked for outside of it.
func TestPutsAreOneAtATime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var calls []string
	b.store.before = func(method string) error {
		calls = append(calls, fmt.Sprint(method, " ", b.PutsOneAtATime()))
		return nil
	}
	b.fcm.ask = func(context.Context) channels.Result {
		calls = append(calls, fmt.Sprint("ask ", b.PutsOneAtATime()))
		return channels.Result{Outcome: channels.Accepted}
	}
	_, err := putFCM(t.Context(), b, 7, "a")
	require.NoError(t, err)
	require.Equal(t, []string{"Credentials false", "ask false", "Credentials true", "PutCredential true"}, calls)
}

// fickle is a channel that reads a credential otherwise once it knows what that
// replaces.
type fickle struct{ *keyring }

func (f fickle) ParseCredential(input []byte, prior json.RawMessage) (channels.Credential, error) {
	c, err := f.keyring.ParseCredential(input, nil)
	if prior != nil {
		c.Qualifier = "other"
	}
	return c, err
}

// TestACredentialThatIsReadInTwoWaysIsNotStored: it would replace one that it is no
// version of. That is a fault of the program, not of the caller.
func TestACredentialThatIsReadInTwoWaysIsNotStored(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := tenants.NewRegistry(tenants.Options{Store: b.store, IDs: ids.NewGenerator(1, b.clock.now), Now: b.clock.now,
		Channels: map[channels.Kind]channels.Channel{channels.FCM: fickle{b.fcm}}})
	put := func() error {
		_, err := r.PutCredential(t.Context(), 7, tenants.PutCredential{Channel: channels.FCM, Input: json.RawMessage(`{"slot":"a"}`)}, "cli")
		return err
	}
	require.NoError(t, put())
	err := put()
	require.ErrorContains(t, err, "in two ways")
	require.Equal(t, problem.Internal, problem.CodeOf(err))
	require.Equal(t, 1, b.store.count("PutCredential"))
}
