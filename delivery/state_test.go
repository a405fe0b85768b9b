package delivery

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
)

// TestStoredNumbersNeverChange pins every code that is stored: a number that
// moved would turn old rows into something else.
func TestStoredNumbersNeverChange(t *testing.T) {
	t.Parallel()
	type code struct {
		number uint8
		name   string
	}
	for _, x := range []struct {
		got interface{ String() string }
		n   uint8
		code
	}{
		{Pending, uint8(Pending), code{1, "pending"}}, {Sending, uint8(Sending), code{2, "sending"}}, {Held, uint8(Held), code{3, "held"}},
		{Sent, uint8(Sent), code{4, "sent"}}, {Dropped, uint8(Dropped), code{5, "dropped"}}, {Dead, uint8(Dead), code{6, "dead"}},

		{NoReason, uint8(NoReason), code{0, ""}},
		{CredentialMissing, uint8(CredentialMissing), code{1, "credential_missing"}}, {CredentialPaused, uint8(CredentialPaused), code{2, "credential_paused"}},
		{CredentialDenied, uint8(CredentialDenied), code{3, "credential_denied"}}, {EndpointPaused, uint8(EndpointPaused), code{4, "endpoint_paused"}},
		{InDoubt, uint8(InDoubt), code{5, "in_doubt"}}, {Gone, uint8(Gone), code{20, "gone"}}, {Expired, uint8(Expired), code{21, "expired"}},
		{Canceled, uint8(Canceled), code{22, "canceled"}}, {Rebound, uint8(Rebound), code{23, "rebound"}}, {Superseded, uint8(Superseded), code{24, "superseded"}},
		{OptedOut, uint8(OptedOut), code{25, "opted_out"}}, {NotNeeded, uint8(NotNeeded), code{26, "not_needed"}}, {Erased, uint8(Erased), code{27, "erased"}},
		{Rejected, uint8(Rejected), code{40, "rejected"}}, {Exhausted, uint8(Exhausted), code{41, "exhausted"}}, {Ambiguous, uint8(Ambiguous), code{42, "ambiguous"}},
		{Crashed, uint8(Crashed), code{43, "crashed"}}, {Unmapped, uint8(Unmapped), code{44, "mapping"}},

		{SkipUnknownUser, uint8(SkipUnknownUser), code{1, "unknown_user"}}, {SkipNoDevice, uint8(SkipNoDevice), code{2, "no_device"}},
		{SkipRetired, uint8(SkipRetired), code{3, "retired"}}, {SkipEndpointPaused, uint8(SkipEndpointPaused), code{4, "endpoint_paused"}},
		{SkipUnknownTarget, uint8(SkipUnknownTarget), code{5, "unknown_target"}}, {SkipSensitive, uint8(SkipSensitive), code{6, "sensitive"}},
		{SkipNoSubscriber, uint8(SkipNoSubscriber), code{7, "no_subscriber"}}, {SkipTooMany, uint8(SkipTooMany), code{8, "too_many_targets"}}, {SkipUnreadable, uint8(SkipUnreadable), code{9, "unreadable"}},
		{SkipErased, uint8(SkipErased), code{10, "erased"}},

		{HoldCredential, uint8(HoldCredential), code{1, "credential"}}, {HoldEndpoint, uint8(HoldEndpoint), code{2, "endpoint"}},
		{HoldMissing, uint8(HoldMissing), code{3, "missing_credential"}}, {HoldDoubt, uint8(HoldDoubt), code{4, "doubt"}}, {HoldRefusal, uint8(HoldRefusal), code{5, "refusal"}},

		{channels.FCM, uint8(channels.FCM), code{1, "fcm"}}, {channels.APNs, uint8(channels.APNs), code{2, "apns"}},
		{channels.WebPush, uint8(channels.WebPush), code{3, "webpush"}}, {channels.Webhook, uint8(channels.Webhook), code{4, "webhook"}},

		{channels.Accepted, uint8(channels.Accepted), code{1, "accepted"}}, {channels.Retry, uint8(channels.Retry), code{2, "retry"}},
		{channels.Throttled, uint8(channels.Throttled), code{3, "throttled"}}, {channels.Gone, uint8(channels.Gone), code{4, "gone"}},
		{channels.Rejected, uint8(channels.Rejected), code{5, "rejected"}}, {channels.Denied, uint8(channels.Denied), code{6, "denied"}},
		{channels.Interrupted, uint8(channels.Interrupted), code{7, "interrupted"}}, {channels.Unknown, uint8(channels.Unknown), code{8, "unknown"}},
	} {
		got := code{x.n, x.got.String()}
		require.Equal(t, x.code, got)
		text, err := json.Marshal(map[string]any{"x": x.got})
		require.NoError(t, err)
		require.JSONEq(t, `{"x":"`+x.name+`"}`, string(text))
	}
	require.Equal(t, []Lane{0, 1, 2}, []Lane{Urgent, Regular, Bulk})
	require.Equal(t, []Ending{0, 1, 2, 3}, []Ending{Open, Resume, Confirm, Reverse})
	require.Equal(t, []devices.Status{1, 2, 3}, []devices.Status{devices.Active, devices.Suspect, devices.Retired})
	require.Equal(t, []channels.Renewal{0, 1, 2, 3, 4}, []channels.Renewal{channels.RenewNothing, channels.RenewToken, channels.RenewConnection, channels.RenewPadding, channels.RenewGateway})
}

func TestNamesAreReadBack(t *testing.T) {
	t.Parallel()
	for _, s := range States() {
		got, ok := ParseState(s.String())
		require.True(t, ok)
		require.Equal(t, s, got)
		require.Equal(t, s < Sent, s.Unfinished())
	}
	for n, name := range reasonNames {
		got, ok := ParseReason(name)
		require.Equal(t, name != "", ok)
		if ok {
			require.Equal(t, Reason(n), got)
		}
	}
	for _, bad := range []string{"", "unknown", "PENDING"} {
		_, ok := ParseState(bad)
		require.False(t, ok)
		_, ok = ParseReason(bad)
		require.False(t, ok)
	}
	require.Equal(t, "state(9)", State(9).String())
	require.Equal(t, "reason(99)", Reason(99).String())
}
