package delivery_test

import (
	"testing"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
)

// TestAnActivityThatEndsMeanwhileGetsNothing: what waits for it is dropped as gone.
func TestAnActivityThatEndsMeanwhileGetsNothing(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	activity := func(ends time.Duration) {
		k.device("alice", "aa", channels.APNs, func(d *devices.Device) {
			d.Purpose, d.ActivityID, d.ExpiresAt = channels.Activity, "order", time.Now().Add(ends)
		})
	}
	activity(time.Hour)
	r := k.post(toUser("alice"))
	k.ends(r, 0, delivery.Held, delivery.CredentialMissing)
	activity(-time.Second)
	k.credential(channels.APNs, "")
	k.ends(r, 0, delivery.Dropped, delivery.Gone)
	k.sound()
}
