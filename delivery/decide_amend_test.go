package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/tenants"
)

// TestAmend is what a finish makes of a transition, as one table. The deadline is
// an hour away, and the row was leased with 1 attempt spent.
func TestAmend(t *testing.T) {
	t.Parallel()
	const (
		push = channels.FCM
		hook = channels.Webhook
	)
	var (
		sent      = Transition{State: Sent, Spent: 2, Device: DeviceConfirmed}
		retired   = Transition{State: Dropped, Reason: Gone, Spent: 2, Device: DeviceRetired}
		suspected = Transition{State: Held, Reason: InDoubt, Spent: 2, Device: DeviceSuspect, Hold: HoldDoubt}
		refused   = Transition{State: Held, Reason: InDoubt, Spent: 1, DueAt: in(time.Minute), Device: DeviceRefused, Hold: HoldRefusal}
		denied    = Transition{State: Held, Reason: CredentialDenied, Spent: 1, Hold: HoldCredential}
		paused    = Transition{State: Held, Reason: EndpointPaused, Spent: 1, Hold: HoldEndpoint}
		rejected  = Transition{State: Dead, Reason: Rejected, Spent: 2}
		retried   = Transition{State: Pending, DueAt: in(time.Minute), Spent: 2, Renew: channels.RenewToken,
			WaitScope: channels.ScopeOrigin, WaitUntil: in(time.Minute)}
		again      = Transition{State: Pending, DueAt: at, Spent: 1}
		dropped    = func(spent int) Transition { return Transition{State: Dropped, Reason: Canceled, Spent: spent} }
		and        = func(t Transition, change func(*Transition)) Transition { change(&t); return t }
		heldFor    = func(t Transition, d time.Duration) Transition { t.DueAt = in(d); return t }
		notHeld    = func(t Transition) Transition { t.State, t.Reason, t.Hold, t.DueAt = Pending, NoReason, 0, at; return t }
		registered = Found{Registered: true}
		canceled   = Found{Canceled: true}
		stands     = Found{HoldStands: true}
	)
	for name, x := range map[string]struct {
		t    Transition
		k    channels.Kind
		f    Found
		want Transition
	}{
		// Nothing has changed.
		"sent":                  {t: sent, want: sent},
		"sent by a webhook":     {t: sent, k: hook, want: sent},
		"retired":               {t: retired, want: retired},
		"dead":                  {t: rejected, want: rejected},
		"retried":               {t: retried, want: retried},
		"retried, by a webhook": {t: retried, k: hook, want: retried},
		"final has no due time": {t: and(rejected, func(t *Transition) { t.DueAt = in(time.Minute) }), want: rejected},
		"final keeps the rest": {t: and(retried, func(t *Transition) { t.State, t.Reason = Dropped, Expired }),
			want: and(retried, func(t *Transition) { t.State, t.Reason, t.DueAt = Dropped, Expired, time.Time{} })},

		// What it is put off for is over: soon, when every node knows that, unless it is due before.
		"put off, over":           {t: and(retried, func(t *Transition) { t.DueAt = in(time.Hour) }), f: Found{WaitOver: true}, want: and(retried, func(t *Transition) { t.DueAt = in(2 * time.Second) })},
		"put off, over, sooner":   {t: and(retried, func(t *Transition) { t.DueAt = in(time.Second) }), f: Found{WaitOver: true}, want: and(retried, func(t *Transition) { t.DueAt = in(time.Second) })},
		"put off, over, canceled": {t: retried, f: Found{WaitOver: true, Canceled: true}, want: dropped(2)},

		// Registered again: only what blames a device of a push service is about it.
		"retired, registered":              {t: retired, f: registered, want: again},
		"suspected, registered":            {t: suspected, f: Found{Registered: true, HoldStands: true}, want: again},
		"suspected, registered, unheld":    {t: suspected, f: registered, want: again},
		"sent, registered":                 {t: sent, f: registered, want: sent},
		"dead, registered":                 {t: rejected, f: registered, want: rejected},
		"retried, registered":              {t: retried, f: registered, want: retried},
		"denied, registered":               {t: denied, f: Found{Registered: true, HoldStands: true}, want: heldFor(denied, time.Hour)},
		"gone webhook, registered":         {t: retired, k: hook, f: registered, want: retired},
		"retired, registered and canceled": {t: retired, f: Found{Registered: true, Canceled: true}, want: dropped(1)},
		"suspected, registered, canceled":  {t: suspected, f: Found{Registered: true, Canceled: true, HoldStands: true}, want: dropped(1)},

		// Canceled: what is final stays, the rest is not tried again. What the verdict
		// says of the device stays too.
		"sent, canceled":               {t: sent, f: canceled, want: sent},
		"retired, canceled":            {t: retired, f: canceled, want: retired},
		"dead, canceled":               {t: rejected, f: canceled, want: rejected},
		"retried, canceled":            {t: retried, f: canceled, want: dropped(2)},
		"retried by a webhook, cancel": {t: retried, k: hook, f: canceled, want: dropped(2)},
		"given back, canceled":         {t: again, f: canceled, want: dropped(1)},
		"denied, canceled":             {t: denied, f: canceled, want: dropped(1)},
		"denied and held, canceled":    {t: denied, f: Found{Canceled: true, HoldStands: true}, want: dropped(1)},
		"suspected, canceled": {t: suspected, f: Found{Canceled: true, HoldStands: true},
			want: and(dropped(2), func(t *Transition) { t.Device = DeviceSuspect })},

		// Held: until the deadline, unless the hold has ended. A webhook's time stands
		// still.
		"suspected and held":      {t: suspected, f: stands, want: heldFor(suspected, time.Hour)},
		"refused and held":        {t: refused, f: stands, want: refused},
		"refused, the end nears":  {t: and(refused, func(t *Transition) { t.DueAt = in(2 * time.Hour) }), f: stands, want: heldFor(refused, time.Hour)},
		"refused, newer version":  {t: refused, want: notHeld(refused)},
		"refused, registered":     {t: refused, f: Found{Registered: true, HoldStands: true}, want: again},
		"denied and held":         {t: denied, f: stands, want: heldFor(denied, time.Hour)},
		"paused webhook":          {t: paused, k: hook, f: stands, want: heldFor(paused, tenants.MaxWebhookTTL)},
		"suspected, hold over":    {t: suspected, want: notHeld(suspected)},
		"denied, hold over":       {t: denied, want: notHeld(denied)},
		"paused webhook, resumed": {t: paused, k: hook, want: notHeld(paused)},
		"pending needs no hold":   {t: retried, f: stands, want: retried},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := x.f
			f.Channel, f.Spent, f.ExpiresAt, f.Now = x.k, 1, in(time.Hour), at
			if f.Channel == 0 {
				f.Channel = push
			}
			got := Amend(x.t, f)
			require.Equal(t, x.want, got)
			if got.State == Held { // a finish that is run again comes to the same
				require.Equal(t, got, Amend(got, f))
			}
		})
	}
}

func TestBlames(t *testing.T) {
	t.Parallel()
	for effect, blames := range map[DeviceEffect]bool{DeviceUntouched: false, DeviceConfirmed: false, DeviceSuspect: true, DeviceRetired: true, DeviceRefused: true} {
		require.Equal(t, blames, Transition{Device: effect}.Blames(channels.APNs))
		require.False(t, Transition{Device: effect}.Blames(channels.Webhook), "an endpoint is not registered again, but changed")
	}
}
