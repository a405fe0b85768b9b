package delivery

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

func TestTheCredentialOfADevice(t *testing.T) {
	t.Parallel()
	const fcm, apns, push = channels.FCM, channels.APNs, channels.WebPush
	cred := func(id ids.ID, app string, k channels.Kind, qualifier string) tenants.Credential {
		return tenants.Credential{ID: id, App: app, Channel: k, Qualifier: qualifier}
	}
	device := func(app string, k channels.Kind, env channels.Environment, key string) TargetNow {
		return TargetNow{App: app, Channel: k, VAPIDKey: key, Target: channels.Target{Environment: env}}
	}
	both, production, sandbox := cred(1, "a", apns, ""), cred(2, "a", apns, "production"), cred(3, "a", apns, "sandbox")
	for name, x := range map[string]struct {
		have    []tenants.Credential
		t       TargetNow
		want    ids.ID
		missing string // the qualifier of what is missing
	}{
		"none":                          {nil, device("a", fcm, "", ""), 0, ""},
		"fcm":                           {[]tenants.Credential{both, cred(7, "a", fcm, "")}, device("a", fcm, "", ""), 7, ""},
		"another app":                   {[]tenants.Credential{cred(7, "b", fcm, "")}, device("a", fcm, "", ""), 0, ""},
		"another channel":               {[]tenants.Credential{both}, device("a", fcm, "", ""), 0, ""},
		"apns for both":                 {[]tenants.Credential{both}, device("a", apns, channels.Sandbox, ""), 1, ""},
		"apns, the narrower one":        {[]tenants.Credential{both, production}, device("a", apns, channels.Production, ""), 2, ""},
		"apns, whatever the order":      {[]tenants.Credential{production, both}, device("a", apns, channels.Production, ""), 2, ""},
		"apns, the wider one":           {[]tenants.Credential{both, production}, device("a", apns, channels.Sandbox, ""), 1, ""},
		"apns, the other one only":      {[]tenants.Credential{production}, device("a", apns, channels.Sandbox, ""), 0, "sandbox"},
		"apns unknown, for both":        {[]tenants.Credential{production, sandbox, both}, device("a", apns, channels.Auto, ""), 1, ""},
		"apns unknown, production":      {[]tenants.Credential{sandbox, production}, device("a", apns, channels.Auto, ""), 2, ""},
		"apns unknown, in other order":  {[]tenants.Credential{production, sandbox}, device("a", apns, channels.Auto, ""), 2, ""},
		"apns unknown, any":             {[]tenants.Credential{sandbox}, device("a", apns, channels.Auto, ""), 3, ""},
		"apns unknown, both come first": {[]tenants.Credential{both, production}, device("a", apns, channels.Auto, ""), 1, ""},
		"apns unknown, none":            {nil, device("a", apns, channels.Auto, ""), 0, ""},
		"push":                          {[]tenants.Credential{cred(4, "a", push, "k1"), cred(5, "a", push, "k2")}, device("a", push, "", "k1"), 4, ""},
		"push, another key":             {[]tenants.Credential{cred(4, "a", push, "k1")}, device("a", push, "", "k2"), 0, "k2"},
		"push unknown, the newest":      {[]tenants.Credential{cred(5, "a", push, "k2"), cred(4, "a", push, "k1")}, device("a", push, "", ""), 5, ""},
	} {
		got := (&picture{credentials: x.have}).credential(&x.t)
		if x.want == 0 {
			require.Nil(t, got, name)
			require.Equal(t, x.missing, qualifier(&x.t), name)
			continue
		}
		require.NotNil(t, got, name)
		require.Equal(t, x.want, got.ID, name)
	}
}

// books is a DirectoryStore that counts how often it is read.
type books struct {
	mu    sync.Mutex
	reads int
	wait  chan struct{}
	err   error
	holds []Hold
}

func (b *books) Tenant(_ context.Context, id ids.ID) (tenants.Tenant, error) {
	b.mu.Lock()
	b.reads++
	wait, err := b.wait, b.err
	b.mu.Unlock()
	if wait != nil {
		<-wait
	}
	return tenants.Tenant{ID: id}, err
}

func (b *books) Credentials(context.Context, ids.ID) ([]tenants.Credential, error) {
	return []tenants.Credential{{ID: 3, Version: 2}}, nil
}

func (b *books) OpenCredential(context.Context, ids.ID, ids.ID) (channels.Credential, error) {
	return channels.Credential{}, nil
}

func (b *books) StandingHolds(context.Context, ids.ID) ([]Hold, error) { return b.holds, nil }

var _ DirectoryStore = (*books)(nil)

func TestADirectoryReadsOnceAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &books{holds: []Hold{{Scope: HoldCredential, Subject: 3}, {Scope: HoldEndpoint, Subject: 4, Ending: Resume}}}
		d := newDirectory(b, time.Now)
		ctx := context.Background()
		require.NoError(t, d.refresh(ctx, 1), "nobody has asked yet")
		require.Zero(t, b.reads)

		first, err := d.of(ctx, 1)
		require.NoError(t, err)
		require.Equal(t, 2, first.byID[3].Version)
		require.Contains(t, first.holds, holdKey{scope: HoldCredential, subject: 3})
		require.Len(t, first.holds, 1, "a hold that ends stops nothing")
		require.Equal(t, map[ids.ID]int{3: 2}, d.versions())
		again, err := d.of(ctx, 1)
		require.NoError(t, err)
		require.Same(t, first, again)
		require.Equal(t, 1, b.reads)

		// While one reads it anew, the others go on with what they have.
		time.Sleep(directoryAge)
		b.wait = make(chan struct{})
		renewed := make(chan *picture, 1)
		go func() { p, _ := d.of(ctx, 1); renewed <- p }()
		synctest.Wait()
		for range 10 {
			old, err := d.of(ctx, 1)
			require.NoError(t, err)
			require.Same(t, first, old)
		}
		require.Equal(t, 2, b.reads)
		close(b.wait)
		now := <-renewed
		require.NotSame(t, first, now)
		b.wait = nil

		require.NoError(t, d.refresh(ctx, 1), "a change is seen at once")
		require.Equal(t, 3, b.reads)
		b.err = errors.New("disk on fire")
		require.Error(t, d.refresh(ctx, 1))
		_, err = d.of(ctx, 2)
		require.ErrorContains(t, err, "disk on fire")
		b.err = nil
		_, err = d.of(ctx, 2)
		require.NoError(t, err, "a failure is not remembered")
	})
}
