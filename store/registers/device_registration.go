package registers

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

const (
	// forgetInstallations keeps so many of a user's installations, the one of a
	// device among them. Those of which all devices are retired go first, then those
	// that were not heard of for longest; each goes with all its devices. A device
	// without an installation id is one by itself.
	forgetInstallations = `DELETE FROM devices WHERE tenant_id=?1 AND user_id=?2 AND id IN (
 SELECT id FROM (SELECT id, DENSE_RANK() OVER (ORDER BY kept DESC, retired, heard DESC, newest DESC) AS place FROM (
  SELECT id, MAX(CASE WHEN id=?3 THEN 1 ELSE 0 END) OVER same AS kept, MIN(CASE WHEN status=3 THEN 1 ELSE 0 END) OVER same AS retired,
   MAX(updated_at) OVER same AS heard, MAX(id) OVER same AS newest
  FROM devices INDEXED BY devices_user WHERE tenant_id=?1 AND user_id=?2
  WINDOW same AS (PARTITION BY app, installation_id, CASE installation_id WHEN '' THEN id ELSE 0 END)) w) p WHERE place>?4)`

	// forgetActivities keeps so many Live Activities that a user has at an
	// installation, a device's among them: those that are retired or have ended go first, then those that
	// were not heard of for longest.
	forgetActivities = `DELETE FROM devices WHERE tenant_id=?1 AND id IN (SELECT id FROM devices INDEXED BY devices_installation
 WHERE tenant_id=?1 AND app=?2 AND installation_id=?3 AND installation_id<>'' AND channel=?4 AND purpose=?5 AND user_id=?6
 ORDER BY CASE WHEN id=?7 THEN 0 WHEN status<3 AND expires_at>?8 THEN 1 ELSE 2 END, updated_at DESC, id DESC LIMIT -1 OFFSET ?9)`
)

// registering is a device on its way into the register.
type registering struct {
	devices.Device
	hash  []byte // of its address
	tags  string
	place int // in the list

	address, installation *devices.Device // the rows that it may be, as they were found
}

// UpsertDevice implements devices.Store.
func (s *deviceRegister) UpsertDevice(ctx context.Context, d devices.Device, by devices.Caller) (devices.Registered, error) {
	res, err := s.UpsertDevices(ctx, d.Tenant, []devices.Device{d}, by)
	if err != nil {
		return devices.Registered{}, err
	}
	return res[0], res[0].Err
}

// UpsertDevices implements devices.Store.
func (s *deviceRegister) UpsertDevices(ctx context.Context, tenant ids.ID, list []devices.Device, by devices.Caller) ([]devices.Registered, error) {
	given := make([]registering, len(list))
	for i, d := range list {
		var err error
		if given[i], err = newRegistering(d, i); err != nil {
			return nil, err
		}
	}
	var r registration
	err := s.db.Write(ctx, db.Op{Alone: true, Weight: len(list), Run: func(t *db.Tx) error {
		r = registration{Tx: t, db: s.db, tenant: tenant, by: by, done: make([]devices.Registered, len(list))}
		return r.register(slices.Clone(given))
	}})
	return r.done, err
}

// newRegistering makes the device what is going to be read back of it.
func newRegistering(d devices.Device, place int) (registering, error) {
	hash := sha256.Sum256([]byte(d.Target.Address))
	e := registering{Device: d, hash: hash[:], place: place}
	e.Purpose = cmp.Or(d.Purpose, channels.Alert)
	e.Status, e.Reason, e.Target = devices.Active, "", storedTarget(d.Target)
	e.LastSeenAt, e.ExpiresAt = storedTime(d.LastSeenAt), storedTime(d.ExpiresAt)
	if len(d.Tags) == 0 {
		e.Tags = nil
	}
	var err error
	e.tags, err = tagsOf(d.Tags)
	return e, err
}

func storedTarget(x channels.Target) channels.Target {
	stored := channels.Target{Kind: x.Kind, Address: x.Address, Environment: x.Environment, OS: x.OS, RegisteredAt: storedTime(x.RegisteredAt)}
	stored.P256dh, stored.Auth = SplitKeys(joinKeys(x))
	return stored
}

func storedTime(at time.Time) time.Time { return db.FromMillis(db.Millis(at)) }

// registration is the transaction that registers devices.
type registration struct {
	*db.Tx
	db     *db.DB
	tenant ids.ID
	by     devices.Caller
	done   []devices.Registered
	added  int // new ones
}

// register comes to what it would come to one device after the other, with few
// statements: it goes in rounds of devices that have nothing to do with each other.
func (r *registration) register(list []registering) (err error) {
	pending := make([]*registering, len(list))
	for i := range list {
		pending[i] = &list[i]
	}
	if err := r.lock(pending); err != nil {
		return err
	}
	if r.db.Kind() == db.Postgres && len(pending) > 1 {
		if err := r.Exec(planEachTime); err != nil {
			return err
		}
		defer func() {
			if err == nil { // otherwise it is undone with the rest
				err = r.Exec(planAsEver)
			}
		}()
	}
	for most := len(pending); len(pending) > 0; {
		taken := pending[:r.apart(pending[:min(most, len(pending))])]
		if err := r.findUsers(taken); err != nil {
			return err
		}
		if err := r.find(taken); err != nil {
			return err
		}
		n := apartInRows(taken)
		if err := r.write(r.admitted(taken[:n])); err != nil {
			return err
		}
		most = len(list)
		if n < len(taken) {
			most = 2 * n // the others are looked up again: not all of them, again and again
		}
		pending = pending[n:]
	}
	return nil
}

func (e *registering) addressName() string {
	return fmt.Sprintf("address:%d:%s:%s", e.Channel, e.App, e.hash)
}

func (e *registering) installationName() string {
	return fmt.Sprintf("installation:%d:%s:%s", e.Channel, e.App, e.InstallationID)
}

// lock keeps others from making the same devices meanwhile.
func (r *registration) lock(list []*registering) error {
	names := make([]string, 0, 2*len(list))
	for _, e := range list {
		names = append(names, e.addressName())
		if e.InstallationID != "" {
			names = append(names, e.installationName())
		}
	}
	return r.Lock(r.tenant, names...)
}

// alone: a device that pushes others out has to do with all of them.
func (r *registration) alone(e *registering) bool {
	return r.by.Own || (e.Purpose == channels.Activity && e.InstallationID != "")
}

// apart is how many of the next devices are about different addresses and places in
// installations.
func (r *registration) apart(pending []*registering) int {
	claimed := map[string]bool{}
	for i, e := range pending {
		if r.alone(e) {
			return max(i, 1)
		}
		names := []string{e.addressName()}
		if e.InstallationID != "" {
			names = append(names, fmt.Sprintf("%s:%d:%s", e.installationName(), e.Purpose, e.ActivityID))
		}
		for _, n := range names {
			if claimed[n] {
				return i
			}
			claimed[n] = true
		}
	}
	return len(pending)
}

// apartInRows is how many of the devices are about different rows: that of an address may
// be at the place of another one's installation.
func apartInRows(taken []*registering) int {
	claimed := map[ids.ID]int{}
	for i, e := range taken {
		for _, old := range []*devices.Device{e.address, e.installation} {
			if old == nil {
				continue
			}
			if by, found := claimed[old.ID]; found && by != i {
				return i
			}
			claimed[old.ID] = i
		}
	}
	return len(taken)
}

// admitted are those that are known, or that there is room for.
func (r *registration) admitted(list []*registering) (in []*registering) {
	for _, e := range list {
		if e.address == nil && e.installation == nil {
			if r.by.Full != nil && r.added >= r.by.Room {
				r.done[e.place].Err = r.by.Full
				continue
			}
			r.added++
		}
		in = append(in, e)
	}
	return in
}

// write stores devices that have nothing to do with each other.
func (r *registration) write(list []*registering) error {
	if err := r.makeUsers(list); err != nil {
		return err
	}
	var events []devices.Event
	for _, e := range list {
		old, err := r.sameDevice(e)
		if err != nil {
			return err
		}
		events = append(events, r.prepare(e, old)...)
	}
	if err := r.store(list); err != nil {
		return err
	}
	if err := r.record(events); err != nil {
		return err
	}
	for _, e := range list {
		if err := r.makeRoom(e); err != nil {
			return err
		}
	}
	return nil
}

// sameDevice is the row that a registration is about: the one with its
// address, or else the one of its installation with its purpose, whose place it
// takes. Where both exist, the address's row stays and the installation's goes.
func (r *registration) sameDevice(e *registering) (old *devices.Device, err error) {
	res := &r.done[e.place]
	switch {
	case e.installation == nil:
		return e.address, nil
	case e.address == nil:
		res.Replaced = true
		return e.installation, nil
	case e.address.ID != e.installation.ID:
		res.Replaced = true
		err = deleteDevice(r.Tx, *e.installation, r.by, devices.ByReplacement)
	}
	return e.address, err
}

// prepare completes a device by what was known of it, and tells what happens to it.
func (r *registration) prepare(e *registering, old *devices.Device) []devices.Event {
	res, now := &r.done[e.place], storedTime(r.Now())
	e.Epoch, e.StatusAt, e.CreatedAt, e.UpdatedAt = 1, now, now, now
	if old == nil {
		res.Created, res.Device = true, e.Device
		return []devices.Event{{Tenant: r.tenant, Device: e.ID, Kind: devices.EventRegistered, UserID: e.UserID, Actor: r.by.Actor}}
	}
	e.ID, e.CreatedAt, e.Epoch = old.ID, old.CreatedAt, old.Epoch
	res.Rebound = old.UserID != e.UserID
	if res.Rebound || old.Purpose != e.Purpose || old.ActivityID != e.ActivityID {
		e.Epoch++ // what waits was meant for somebody, or something, else
	}
	// What the gateway has taught us outlives a registration that does not know.
	if same := old.Target.Address == e.Target.Address; same && e.Target.Environment == "auto" && old.Target.Environment != "" {
		e.Target.Environment = old.Target.Environment
	}
	if e.VAPIDKey == "" && old.Target.Address == e.Target.Address {
		e.VAPIDKey = old.VAPIDKey
	}
	res.Device = e.Device
	return changes(*old, e, r.by.Actor)
}

// changes are what a registration has changed about a device: mostly nothing that
// matters.
func changes(old devices.Device, e *registering, actor string) (list []devices.Event) {
	event := devices.Event{Tenant: old.Tenant, Device: old.ID, Actor: actor}
	if old.Target.Address != e.Target.Address {
		event.Kind = devices.EventAddressChanged
		list = append(list, event)
	}
	if old.UserID != e.UserID {
		event.Kind, event.UserID = devices.EventRebound, e.UserID
		list = append(list, event)
	}
	if old.Status != devices.Active {
		event.Kind, event.UserID, event.Reason = devices.EventRestored, 0, devices.ByRegistration
		list = append(list, event)
	}
	return list
}

// makeRoom removes what is too much beside a device.
func (r *registration) makeRoom(e *registering) error {
	if !r.alone(e) {
		return nil
	}
	res := r.done[e.place]
	was := cmp.Or(e.address, e.installation)
	if r.by.Own && (res.Created || res.Rebound || was.InstallationID != e.InstallationID) {
		if err := forget(r.Tx, r.tenant, r.by, forgetInstallations, r.tenant, e.UserID, e.ID, devices.MaxOwn); err != nil {
			return err
		}
	}
	if e.Purpose != channels.Activity || e.InstallationID == "" {
		return nil
	}
	return forget(r.Tx, r.tenant, r.by, forgetActivities, r.tenant, e.App, e.InstallationID, e.Channel, e.Purpose, e.UserID, e.ID,
		db.Millis(r.Now()), devices.MaxActivities)
}

// forget removes devices that are too many, as deleteDevice does: those that a user's
// token pushes out leave no history.
func forget(t *db.Tx, tenant ids.ID, by devices.Caller, query string, args ...any) error {
	if !by.Own {
		_, err := RecordDevices(t, devices.Event{Kind: devices.EventDeleted, Reason: devices.ByLimit, Actor: by.Actor}, query, args...)
		if err != nil {
			return fmt.Errorf("make room for a device: %w", err)
		}
		return nil
	}
	gone, err := changedDevices(t, query, args...)
	if err != nil {
		return fmt.Errorf("make room for a device: %w", err)
	}
	for _, d := range gone {
		if err := forgetHistory(t, tenant, d.id); err != nil {
			return err
		}
	}
	return nil
}
