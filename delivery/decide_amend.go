package delivery

import (
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// Found is what a finish finds in the database, under its locks, that the attempt
// could not know.
type Found struct {
	Channel    channels.Kind
	Spent      int       // of the row as it was leased
	ExpiresAt  time.Time // the deadline, as it may have moved
	Now        time.Time
	Registered bool   // the device was registered again since the attempt began: the verdict is about the address before
	Canceled   bool   // the notification was canceled
	Newer      ids.ID // a notification that took its place meanwhile; 0: it is the newest of its collapse key
	WaitOver   bool   // what it is put off for has ended meanwhile
	HoldStands bool   // the hold that the transition names stands, or was opened just now
}

// allKnow is how long after something has changed in the database all nodes go by it.
const allKnow = 2 * snapshotAge

// Amend fits a transition to what is found by the time that it is written.
// Found.Registered matters only where t.Blames; Found.Canceled and Found.Newer only
// where the outcome is unfinished.
func Amend(t Transition, f Found) Transition {
	if f.Registered && t.Blames(f.Channel) {
		t = Transition{State: Pending, DueAt: f.Now, Spent: f.Spent}
	}
	switch {
	case !t.State.Unfinished():
		t.DueAt = time.Time{}
	case f.Canceled: // what would be tried again is not
		device := t.Device
		t = cancel(t.Spent)
		t.Device = device
	case f.Newer != 0:
		device := t.Device
		t = supersede(f.Newer, t.Spent)
		t.Device = device
	case f.WaitOver: // whoever brought forward what waited for it may not have met this one
		if soon := f.Now.Add(allKnow); soon.Before(t.DueAt) {
			t.DueAt = soon
		}
	case t.State == Held && !f.HoldStands: // it has ended: there is nothing to wait for
		t.State, t.Reason, t.Hold, t.DueAt = Pending, NoReason, 0, f.Now
	case t.State == Held && f.Channel == channels.Webhook:
		t.DueAt = f.Now.Add(tenants.MaxWebhookTTL) // a hold does not spend a webhook's time
	case t.Hold == HoldRefusal && t.DueAt.Before(f.ExpiresAt): // it is looked at again before
	case t.State == Held:
		t.DueAt = f.ExpiresAt // its deadline is found by the same claim
	}
	return t
}

// Blames tells whether a transition says of a device that it is gone, or may be.
func (t Transition) Blames(k channels.Kind) bool {
	return k != channels.Webhook && (t.Device == DeviceRetired || t.Device == DeviceSuspect || t.Device == DeviceRefused)
}
