package db

import (
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/keyset"
)

// RingKey is a key of a key ring. It is told apart by its number, which is no secret.
type RingKey struct {
	ID        uint32
	Algorithm string
	Role      RingRole
}

// RingRole is what a key of a key ring is for.
type RingRole string

// The roles. Keys are in the order in which they were made, so one behind the
// primary key has never been primary.
const (
	RingOld      RingRole = "old"      // opens what it has sealed
	RingPrimary  RingRole = "primary"  // seals
	RingPrepared RingRole = "prepared" // will be the next primary one
)

// Keys lists the keys, oldest first.
func (r *KeyRing) Keys() []RingKey {
	info := r.keys.KeysetInfo()
	var out []RingKey
	role := RingOld
	for _, k := range info.GetKeyInfo() {
		x := RingKey{ID: k.GetKeyId(), Algorithm: algorithm(k.GetTypeUrl()), Role: role}
		if x.ID == info.GetPrimaryKeyId() {
			x.Role, role = RingPrimary, RingPrepared
		}
		out = append(out, x)
	}
	return out
}

// Primary is the number of the key that seals.
func (r *KeyRing) Primary() uint32 { return r.keys.KeysetInfo().GetPrimaryKeyId() }

func (r *KeyRing) prepared() (id uint32, found bool) {
	for _, k := range r.Keys() {
		if k.Role == RingPrepared {
			return k.ID, true
		}
	}
	return 0, false
}

// Prepare gives the text of a key ring with one key more, which opens but does not
// seal yet. When every node has it, Rotate may follow.
func (r *KeyRing) Prepare() (string, error) {
	if id, found := r.prepared(); found {
		return "", fmt.Errorf("the key ring has a prepared key already, %d: give this key ring to every node, then run `carillon key-ring rotate`", id)
	}
	return r.edit(func(m *keyset.Manager) error {
		_, err := m.Add(newKey())
		return err
	})
}

// Rotate gives the text of a key ring that seals with the prepared key, or with a
// new one where none is prepared. All that the key ring opens it opens as well.
func (r *KeyRing) Rotate() (string, error) {
	id, prepared := r.prepared()
	return r.edit(func(m *keyset.Manager) (err error) {
		if !prepared {
			if id, err = m.Add(newKey()); err != nil {
				return err
			}
		}
		return m.SetPrimary(id)
	})
}

// ErrNothingToPrune says that each key of a key ring is needed.
var ErrNothingToPrune = errors.New("every old key of the key ring is still needed, or there is none")

// Prune gives the text of a key ring without the old keys that are not needed.
func (r *KeyRing) Prune(needed func(id uint32) bool) (text string, removed []uint32, err error) {
	for _, k := range r.Keys() {
		if k.Role == RingOld && !needed(k.ID) {
			removed = append(removed, k.ID)
		}
	}
	if removed == nil {
		return "", nil, ErrNothingToPrune
	}
	text, err = r.edit(func(m *keyset.Manager) error {
		for _, id := range removed {
			if err := m.Delete(id); err != nil {
				return err
			}
		}
		return nil
	})
	return text, removed, err
}

func (r *KeyRing) edit(change func(*keyset.Manager) error) (string, error) {
	m := keyset.NewManagerFromHandle(r.keys)
	if err := change(m); err != nil {
		return "", fmt.Errorf("change the key ring: %w", err)
	}
	h, err := m.Handle()
	if err != nil {
		return "", fmt.Errorf("change the key ring: %w", err)
	}
	return textOf(h)
}
