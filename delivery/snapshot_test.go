package delivery

import (
	"testing"

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
		"push, another key":             {[]tenants.Credential{cred(4, "a", push, "k1")}, device("a", push, "", "k2"), 4, ""},
		"push unknown, the newest":      {[]tenants.Credential{cred(5, "a", push, "k2"), cred(4, "a", push, "k1")}, device("a", push, "", ""), 5, ""},
	} {
		got := (&snapshot{credentials: x.have}).credential(&x.t, lastAttempt{})
		if x.want == 0 {
			require.Nil(t, got, name)
			require.Equal(t, x.missing, qualifier(&x.t), name)
			continue
		}
		require.NotNil(t, got, name)
		require.Equal(t, x.want, got.ID, name)
	}
}
