package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

func TestThePairsOfASubscription(t *testing.T) {
	t.Parallel()
	s := &snapshot{}
	for i, key := range []string{"first", "second", "third"} {
		s.credentials = append(s.credentials, tenants.Credential{ID: ids.ID(i + 1), App: "a", Channel: channels.WebPush, Qualifier: key, CreatedAt: in(time.Duration(i) * time.Hour)})
	}
	s.credentials = append(s.credentials, tenants.Credential{ID: 9, App: "b", Channel: channels.WebPush, Qualifier: "other"}, tenants.Credential{ID: 10, App: "a", Channel: channels.FCM})
	for name, x := range map[string]struct {
		key   string
		since time.Duration
		want  []ids.ID
	}{
		"its own":                          {"first", 5 * time.Hour, []ids.ID{1, 3, 2}},
		"unknown, of today":                {"", 5 * time.Hour, []ids.ID{3, 2, 1}},
		"unknown, from before the third":   {"", 90 * time.Minute, []ids.ID{2, 3, 1}},
		"unknown, from before the second":  {"", 30 * time.Minute, []ids.ID{1, 3, 2}},
		"unknown, from before any of them": {"", -time.Hour, []ids.ID{3, 2, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := TargetNow{App: "a", Channel: channels.WebPush, VAPIDKey: x.key, CreatedAt: in(x.since)}
			var got []ids.ID
			last := lastAttempt{}
			for {
				c := s.credential(&target, last)
				got = append(got, c.ID)
				require.Equal(t, c.ID, s.credential(&target, lastAttempt{c.ID, channels.RenewToken}).ID, "a new token is for the same pair")
				if !s.morePairs(&target, c.ID) {
					break
				}
				last = lastAttempt{c.ID, channels.RenewPair}
			}
			require.Equal(t, x.want, got)
			require.Equal(t, x.want[0], s.credential(&target, lastAttempt{77, channels.RenewPair}).ID, "one that is gone by now")
		})
	}
	require.NotNil(t, s.credential(&TargetNow{App: "a", Channel: channels.WebPush, VAPIDKey: "deleted"}, lastAttempt{}), "it is tried with what there is")
	require.False(t, s.morePairs(&TargetNow{App: "b", Channel: channels.WebPush}, 9))
}
