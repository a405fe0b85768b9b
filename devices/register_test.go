package devices_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/problem"
)

func list(n int) []devices.Registration {
	out := make([]devices.Registration, n)
	for i := range out {
		out[i] = devices.Registration{User: fmt.Sprint("u", i), Channel: channels.APNs, Address: fmt.Sprint("a", i)}
	}
	return out
}

// TestAListIsStoredInParts: what is refused is not stored, and keeps nobody back.
func TestAListIsStoredInParts(t *testing.T) {
	t.Parallel()
	r, s := registry()
	in := list(devices.MaxTogether + 3)
	in[1].User, in[2].Address = "", "a b"
	done, err := r.RegisterAll(t.Context(), 7, in, devices.Caller{Actor: "key_test"})
	require.NoError(t, err)
	require.Len(t, done, len(in))
	require.Equal(t, []int{devices.MaxTogether, 1}, s.parts)
	require.Equal(t, "key_test", s.by.Actor)
	for i, x := range done {
		if path, refused := map[int]string{1: "user", 2: "address"}[i]; refused {
			var p *problem.Error
			require.ErrorAs(t, x.Err, &p)
			require.Equal(t, path, p.Fields[0].Path)
			continue
		}
		require.NoError(t, x.Err)
		require.Equal(t, in[i].User, x.Device.User)
	}
}

// TestAListThatIsCutTellsWhatIsLeft: what was stored is told, and so is what was not.
func TestAListThatIsCutTellsWhatIsLeft(t *testing.T) {
	t.Parallel()
	r, s := registry()
	s.err = errors.New("down")
	done, err := r.RegisterAll(t.Context(), 7, list(3*devices.MaxTogether), devices.Caller{})
	require.NoError(t, err)
	require.Equal(t, []int{devices.MaxTogether}, s.parts)
	for i, x := range done {
		require.Equal(t, i >= devices.MaxTogether, errors.Is(x.Err, s.err), i)
	}
	_, err = r.RegisterAll(t.Context(), 7, list(1), devices.Caller{})
	require.ErrorIs(t, err, s.err, "nothing was stored")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = r.RegisterAll(ctx, 7, list(1), devices.Caller{})
	require.Error(t, err)
}

// TestAListAsksOnceForAPair: a million browsers are bound to the same.
func TestAListAsksOnceForAPair(t *testing.T) {
	t.Parallel()
	r, s := registry()
	key := base64.RawURLEncoding.EncodeToString(append([]byte{4}, make([]byte, 64)...))
	s.pair = "default " + key
	in := list(4)
	for i := range in {
		in[i].Channel, in[i].Auth, in[i].VAPIDKey = channels.WebPush, "AAAA", key
	}
	in[3].App = "other"
	done, err := r.RegisterAll(t.Context(), 7, in, devices.Caller{})
	require.NoError(t, err)
	require.Equal(t, 2, s.asked)
	require.NoError(t, done[0].Err)
	require.NoError(t, done[2].Err)
	require.ErrorContains(t, done[3].Err, "vapid_key")
}
