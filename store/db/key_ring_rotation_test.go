package db

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func parsed(t *testing.T, text string, err error) *KeyRing {
	t.Helper()
	require.NoError(t, err)
	r, err := ParseKeyRing(text)
	require.NoError(t, err)
	return r
}

func roles(r *KeyRing) (out []RingRole) {
	for _, k := range r.Keys() {
		out = append(out, k.Role)
	}
	return out
}

// TestAKeyRingIsRotatedInSteps: at each step the nodes before it read what those
// behind it seal.
func TestAKeyRingIsRotatedInSteps(t *testing.T) {
	t.Parallel()
	first, text, err := NewKeyRing()
	require.NoError(t, err)
	prepared := parsed(t, func() string { text, err = first.Prepare(); return text }(), err)
	require.Equal(t, first.Primary(), prepared.Primary())
	require.Equal(t, []RingRole{RingPrimary, RingPrepared}, roles(prepared))
	_, err = prepared.Prepare()
	require.ErrorContains(t, err, "prepared key already")
	rotated := parsed(t, func() string { text, err = prepared.Rotate(); return text }(), err)
	require.Equal(t, []RingRole{RingOld, RingPrimary}, roles(rotated))
	require.Equal(t, prepared.Keys()[1].ID, rotated.Primary(), "the prepared one")
	require.Equal(t, first.Primary(), prepared.Primary(), "the old one is as it was")

	const tenant = 7
	for _, seals := range []*KeyRing{first, prepared, rotated} {
		sealed, err := seals.NewKeyset(tenant)
		require.NoError(t, err)
		by, err := SealedBy(sealed)
		require.NoError(t, err)
		require.Equal(t, seals.Primary(), by)
		for _, opens := range []*KeyRing{first, prepared, rotated} {
			_, err := opens.read(tenant, sealed)
			require.Equal(t, seals == rotated && opens == first, err != nil, "only who was never given the new key does not read it")
		}
	}

	at := parsed(t, func() string { text, err = rotated.Rotate(); return text }(), err)
	require.Equal(t, []RingRole{RingOld, RingOld, RingPrimary}, roles(at), "without a prepared key a new one seals at once")
	_, _, err = at.Prune(func(uint32) bool { return true })
	require.ErrorIs(t, err, ErrNothingToPrune)
	text, removed, err := at.Prune(func(id uint32) bool { return id == rotated.Primary() })
	require.Equal(t, []uint32{first.Primary()}, removed)
	require.Equal(t, []RingRole{RingOld, RingPrimary}, roles(parsed(t, text, err)))
	_, _, err = prepared.Prune(func(uint32) bool { return false })
	require.ErrorIs(t, err, ErrNothingToPrune, "a prepared key is not an old one")
}

// TestATenantHasOnlySoManyKeys: at the bound its keys are sealed anew, but none is added.
func TestATenantHasOnlySoManyKeys(t *testing.T) {
	t.Parallel()
	const tenant = 7
	r, _, err := NewKeyRing()
	require.NoError(t, err)
	sealed, err := r.NewKeyset(tenant)
	require.NoError(t, err)
	for range MaxTenantKeys - 1 {
		sealed, err = r.Reseal(tenant, sealed, true)
		require.NoError(t, err)
	}
	h, err := r.read(tenant, sealed)
	require.NoError(t, err)
	require.Equal(t, MaxTenantKeys, h.Len())
	anew, err := r.Reseal(tenant, sealed, true)
	require.NoError(t, err)
	require.Nil(t, anew)
}
