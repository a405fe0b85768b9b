package devices

import (
	"context"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// Register stores a device, or what has changed about it. Paths in the error are
// those of the JSON body ("keys.auth" for Auth); all faults are reported at once.
func (r *Registry) Register(ctx context.Context, tenant ids.ID, in Registration) (Registered, error) {
	d, err := (&checking{Registry: r, tenant: tenant}).device(ctx, in)
	if err != nil {
		return Registered{}, err
	}
	by := in.By
	by.Room, by.Full = r.quota.Room(tenant)
	done, err := r.store.UpsertDevice(ctx, d, by)
	if err == nil && done.Created {
		r.quota.Add(tenant, 1)
	}
	return done, err
}

// RegisterAll registers up to MaxBatch devices, as Register would one after the other. One
// that is refused has an Err of its own, and the others go on. They are stored in parts;
// when one of these fails the rest is not tried, and has its error: nothing is lost by
// registering all of them again. The error is that of the first part.
func (r *Registry) RegisterAll(ctx context.Context, tenant ids.ID, list []Registration, by Caller) ([]Registered, error) {
	out := make([]Registered, len(list))
	check := &checking{Registry: r, tenant: tenant}
	var (
		sound  []Device
		places []int
	)
	for i := range list {
		d, err := check.device(ctx, list[i])
		if err != nil {
			if problem.CodeOf(err) == problem.Internal || ctx.Err() != nil {
				return nil, err
			}
			out[i].Err = err
			continue
		}
		sound, places = append(sound, d), append(places, i)
	}
	for from := 0; from < len(sound); from += MaxTogether {
		to := min(from+MaxTogether, len(sound))
		done, err := r.registerPart(ctx, tenant, sound[from:to], by)
		if err != nil && from == 0 {
			return nil, err
		}
		for i, place := range places[from:to] {
			if err == nil {
				out[place] = done[i]
			}
		}
		if err != nil {
			for _, place := range places[from:] {
				out[place].Err = err
			}
			break
		}
	}
	return out, nil
}

func (r *Registry) registerPart(ctx context.Context, tenant ids.ID, list []Device, by Caller) ([]Registered, error) {
	select {
	case r.lists <- struct{}{}:
		defer func() { <-r.lists }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	by.Room, by.Full = r.quota.Room(tenant)
	done, err := r.store.UpsertDevices(ctx, tenant, list, by)
	added := 0
	for i := range done {
		if err == nil && done[i].Created {
			added++
		}
	}
	if added > 0 {
		r.quota.Add(tenant, added)
	}
	return done, err
}

// checking checks what a caller says of devices.
type checking struct {
	*Registry
	tenant ids.ID
	pairs  map[AddressKey]bool // by app and key: whether there is such a VAPID pair
}

// device checks a registration and makes it what is stored: sound, and in canonical form.
func (c *checking) device(ctx context.Context, in Registration) (Device, error) {
	now := c.now().UTC()
	if in.App == "" {
		in.App = defaultApp
	}
	var faults problem.Fields
	target := c.target(&faults, in)
	vapid := vapidKey(&faults, in)
	purpose := purposeOf(&faults, in)
	locale := c.checkDetails(&faults, in)
	checkTimes(&faults, in, purpose, now)
	if purpose == channels.Activity && in.ExpiresAt.IsZero() {
		in.ExpiresAt = now.Add(ActivityLife)
	}
	if err := faults.Err(); err != nil {
		return Device{}, err
	}
	if vapid != "" {
		// Otherwise whoever holds a user's token could have deliveries wait for keys
		// that there will never be.
		if has, err := c.hasPair(ctx, in.App, vapid); err != nil {
			return Device{}, err
		} else if !has {
			return Device{}, problem.AtField("vapid_key", "is not the public key of a VAPID pair of the app %s; give the applicationServerKey that the browser subscribed with, or leave it out", in.App)
		}
	}
	return Device{
		Tenant: c.tenant, ID: c.ids.Next(), User: in.User,
		App: in.App, Channel: in.Channel, Target: target, VAPIDKey: vapid,
		Purpose: purpose, ActivityID: in.ActivityID,
		InstallationID: in.InstallationID, AppVersion: in.AppVersion,
		Locale: locale, TimeZone: in.TimeZone, Tags: in.Tags,
		LastSeenAt: in.LastSeenAt, ExpiresAt: in.ExpiresAt,
		Status: Active, StatusAt: now, CreatedAt: now, UpdatedAt: now,
	}, nil
}

// hasPair asks the store once about a pair.
func (c *checking) hasPair(ctx context.Context, app, key string) (bool, error) {
	k := AddressKey{App: app, Address: key}
	if has, known := c.pairs[k]; known {
		return has, nil
	}
	has, err := c.store.HasPair(ctx, c.tenant, app, key)
	if err != nil {
		return false, err
	}
	if c.pairs == nil {
		c.pairs = map[AddressKey]bool{}
	}
	c.pairs[k] = has
	return has, nil
}
