package store_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

// before is the key ring of a version that sealed with AES-GCM.
type before struct{ keys *keyset.Handle }

func ringOfBefore(t *testing.T) (before, *db.KeyRing) {
	t.Helper()
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&b)))
	ring, err := db.ParseKeyRing(base64.StdEncoding.EncodeToString(b.Bytes()))
	require.NoError(t, err)
	return before{h}, ring
}

// keyset is what that version made for a tenant.
func (x before) keyset(t *testing.T, tenant ids.ID) []byte {
	t.Helper()
	master, err := aead.New(x.keys)
	require.NoError(t, err)
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	require.NoError(t, err)
	row := binary.BigEndian.AppendUint64([]byte("tenant"), uint64(tenant))
	row = binary.BigEndian.AppendUint64(row, 0)
	var b bytes.Buffer
	require.NoError(t, h.WriteWithAssociatedData(keyset.NewBinaryWriter(&b), master, row))
	return b.Bytes()
}

// resealing is a database with tenants of before, and what its steps do.
type resealing struct {
	*testing.T
	o    testOptions
	ring before
	exec func(query string, args ...any)
}

func newResealing(t *testing.T) *resealing {
	t.Helper()
	o := options(t)
	x := &resealing{T: t}
	x.ring, o.KeyRing = ringOfBefore(t)
	x.o = o
	x.exec = func(query string, args ...any) {
		t.Helper()
		_, err := rawDB(t, o).Exec(numbered(o, query), args...)
		require.NoError(t, err)
	}
	return x
}

func (x *resealing) tenant(s *store.Store, name string) ids.ID {
	x.Helper()
	id := x.o.IDs.Next()
	require.NoError(x, s.CreateTenant(x.Context(), tenants.Tenant{ID: id, Name: name}, tenants.Change{Actor: "test", Action: "test"}))
	x.exec("UPDATE tenants SET keyset=? WHERE id=?", x.ring.keyset(x.T, id), int64(id))
	return id
}

func (x *resealing) rotated() *db.KeyRing {
	x.Helper()
	text, err := x.o.KeyRing.Rotate()
	require.NoError(x, err)
	ring, err := db.ParseKeyRing(text)
	require.NoError(x, err)
	return ring
}

// as opens the store with another key ring.
func (x *resealing) as(ring *db.KeyRing) *store.Store {
	x.Helper()
	o := x.o
	o.KeyRing = ring
	return open(x.T, o)
}

// run takes the steps of the job as a server does.
func (x *resealing) run(s *store.Store) (jobs.Job, error) {
	x.Helper()
	for {
		j, _, err := s.ClaimJob(x.Context(), jobs.ClaimOrder{Kinds: []jobs.Kind{jobs.ResealKeys}, Now: s.Now(), Lease: s.Now().Add(time.Minute), Claim: int64(s.IDs().Next())})
		require.NoError(x, err)
		require.NotZero(x, j.ID)
		p, err := s.ResealStep(context.WithoutCancel(x.Context()), j)
		if err != nil {
			j.LeaseUntil = s.Now()
			_, returned := s.ReturnJob(x.Context(), j)
			require.NoError(x, returned)
			return j, err
		}
		if p.End {
			j, err = s.Job(x.Context(), 0, j.ID)
			require.NoError(x, err)
			return j, nil
		}
	}
}

const sealedText = "what is sealed"

func (x *resealing) sealed(s *store.Store, tenant ids.ID) []byte {
	x.Helper()
	b, err := s.Seal(db.SealPayload, tenant, 1, []byte(sealedText))
	require.NoError(x, err)
	return b
}

func (x *resealing) opens(s *store.Store, tenant ids.ID, sealed []byte) {
	x.Helper()
	plain, err := s.Unseal(db.SealPayload, tenant, 1, sealed)
	require.NoError(x, err)
	require.Equal(x, sealedText, string(plain))
}

// TestResealBringsTenantsUnderTheNewKey: nobody needs the old key any more, what was
// sealed opens, hashes are what they were, and tenants seal with new keys.
func TestResealBringsTenantsUnderTheNewKey(t *testing.T) {
	t.Parallel()
	x := newResealing(t)
	was := x.as(x.o.KeyRing)
	a, b, gone := x.tenant(was, "a"), x.tenant(was, "b"), x.tenant(was, "gone")
	sealed := x.sealed(was, a)
	hash, err := was.KeyedHash(a, "collapse")
	require.NoError(t, err)
	_, err = was.DeleteTenant(t.Context(), gone, tenants.Change{Actor: "test", Action: "tenant.delete"})
	require.NoError(t, err)
	k, err := was.Keysets(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, k.By[x.o.KeyRing.Primary()])
	require.Equal(t, 2, k.AESGCM)

	ring := x.rotated()
	s := x.as(ring)
	require.NoError(t, s.CheckKeyRing(t.Context()))
	require.Equal(t, 2, s.Examine(t.Context(), false).OldKeys, "doctor says so")
	made, err := s.CreateReseal(t.Context(), false, "cli")
	require.NoError(t, err)
	require.Equal(t, 2, made.Total)
	again, err := s.CreateReseal(t.Context(), false, "cli")
	require.NoError(t, err)
	require.Equal(t, made.ID, again.ID, "one is enough")
	_, err = s.CreateReseal(t.Context(), true, "cli")
	require.Equal(t, problem.Conflict, problem.CodeOf(err), "%v", err)
	j, err := x.run(s)
	require.NoError(t, err)
	require.Equal(t, "done 2 0 0", fmt.Sprint(j.State, j.Done, j.Skipped, j.Failed))

	k, err = s.Keysets(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[uint32]int{ring.Primary(): 2}, k.By)
	require.Zero(t, k.AESGCM)
	d := s.Examine(t.Context(), false)
	require.Zero(t, d.OldKeys+d.AESGCM)
	pruned, removed, err := ring.Prune(func(id uint32) bool { return k.By[id] > 0 })
	require.NoError(t, err)
	require.Equal(t, []uint32{x.o.KeyRing.Primary()}, removed)
	alone, err := db.ParseKeyRing(pruned)
	require.NoError(t, err)
	for _, s := range []*store.Store{s, x.as(alone)} {
		require.NoError(t, s.CheckKeyRing(t.Context()))
		x.opens(s, a, sealed)
		x.opens(s, a, x.sealed(s, a))
		x.opens(s, b, x.sealed(s, b))
		same, err := s.KeyedHash(a, "collapse")
		require.NoError(t, err)
		require.Equal(t, hash, same)
	}
	require.Error(t, x.as(x.o.KeyRing).CheckKeyRing(t.Context()), "the old key ring opens nothing")
	_, err = s.Seal(db.SealPayload, gone, 1, []byte("x"))
	require.Error(t, err, "the keys of a deleted tenant stay destroyed")

	_, err = s.CreateReseal(t.Context(), false, "cli")
	require.NoError(t, err)
	j, err = x.run(s)
	require.NoError(t, err)
	require.Equal(t, "done 0 2 0", fmt.Sprint(j.State, j.Done, j.Skipped, j.Failed), "once more changes nothing")
}

// TestANodeFindsTheNewKeyOfATenant: one that has a tenant's keys open reads what
// another node seals with a newer one, and seals with it within the hour.
func TestANodeFindsTheNewKeyOfATenant(t *testing.T) {
	t.Parallel()
	x := newResealing(t)
	other, s := x.as(x.o.KeyRing), x.as(x.o.KeyRing)
	reads, seals := x.tenant(s, "reads"), x.tenant(s, "seals")
	number := func(b []byte) uint32 { return binary.BigEndian.Uint32(b[1:5]) }
	oldReads, oldSeals := x.sealed(other, reads), x.sealed(other, seals)
	_, err := s.CreateReseal(t.Context(), true, "cli")
	require.NoError(t, err)
	_, err = x.run(s)
	require.NoError(t, err)

	b := x.sealed(s, reads)
	require.NotEqual(t, number(oldReads), number(b))
	x.opens(other, reads, b)
	x.opens(other, reads, oldReads)
	require.Equal(t, number(b), number(x.sealed(other, reads)), "from then on it seals with it")

	require.Equal(t, number(oldSeals), number(x.sealed(other, seals)))
	x.o.clock.Advance(time.Hour)
	require.Equal(t, number(x.sealed(s, seals)), number(x.sealed(other, seals)))
	x.opens(other, seals, oldSeals)

	damaged := bytes.Clone(b)
	damaged[len(damaged)-1]++
	_, err = other.Unseal(db.SealPayload, reads, 1, damaged)
	require.ErrorContains(t, err, "does not open")
}

// TestResealWaitsForTheKeyRing: a node whose key ring has not been rotated, or has
// been again, leaves everything as it is.
func TestResealWaitsForTheKeyRing(t *testing.T) {
	t.Parallel()
	x := newResealing(t)
	was := x.as(x.o.KeyRing)
	x.tenant(was, "a")
	s := x.as(x.rotated())
	_, err := s.CreateReseal(t.Context(), false, "cli")
	require.NoError(t, err)
	_, err = x.run(was)
	require.ErrorContains(t, err, "give the rotated key ring to all nodes")
	_, err = x.run(s)
	require.NoError(t, err)
}

// TestResealWaitsForOneVersion: a version of before that has the tenant's keys open
// would not look for a new one.
func TestResealWaitsForOneVersion(t *testing.T) {
	t.Parallel()
	x := newResealing(t)
	s := x.as(x.o.KeyRing)
	x.tenant(s, "a")
	now := x.o.clock.Now()
	x.exec("INSERT INTO nodes (id,token,name,role,version,started_at,beat_at,horizon) VALUES (9,1,'old one','all','0.1',?,?,?)", now.UnixMilli(), now.UnixMilli(), now.UnixMilli())
	_, err := s.CreateReseal(t.Context(), false, "cli")
	require.NoError(t, err)
	_, err = x.run(s)
	require.ErrorContains(t, err, "old one runs 0.1")
	k, err := s.Keysets(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, k.AESGCM)
	x.exec("UPDATE nodes SET token=0 WHERE id=9")
	_, err = x.run(s)
	require.NoError(t, err)
}

// TestResealPassesOverWhatDoesNotOpen: one tenant's broken keys keep nobody else's back.
func TestResealPassesOverWhatDoesNotOpen(t *testing.T) {
	t.Parallel()
	x := newResealing(t)
	s := x.as(x.o.KeyRing)
	strange, _ := ringOfBefore(t)
	a, broken := x.tenant(s, "a"), x.tenant(s, "broken")
	x.exec("UPDATE tenants SET keyset=? WHERE id=?", strange.keyset(t, broken), int64(broken))
	require.ErrorContains(t, s.CheckKeyRing(t.Context()), "do not open with this key ring")
	s = x.as(x.rotated())
	_, err := s.CreateReseal(t.Context(), false, "cli")
	require.NoError(t, err)
	j, err := x.run(s)
	require.NoError(t, err)
	require.Equal(t, "done 1 0 1", fmt.Sprint(j.State, j.Done, j.Skipped, j.Failed))
	require.JSONEq(t, `{"unopened":["broken"]}`, string(j.Result))
	x.opens(s, a, x.sealed(s, a))
}

// TestResealGoesOnWhereItWas: it takes its tenants a thousand at a time.
func TestResealGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	x := newResealing(t)
	s := x.as(x.o.KeyRing)
	for i := range db.MaxBatch + 5 {
		id := x.o.IDs.Next()
		sealed, err := x.o.KeyRing.NewKeyset(id)
		require.NoError(t, err)
		require.NoError(t, s.Do(t.Context(), 1, func(tx *db.Tx) error {
			return tx.Exec("INSERT INTO tenants (id,name,title,settings,keyset,created_at,updated_at,deleted_at) VALUES (?,?,'','{}',?,0,0,0)", id, fmt.Sprint("t", i), sealed)
		}))
	}
	s = x.as(x.rotated())
	_, err := s.CreateReseal(t.Context(), false, "cli")
	require.NoError(t, err)
	j, err := x.run(s)
	require.NoError(t, err)
	require.Equal(t, db.MaxBatch+5, j.Done)
	require.JSONEq(t, fmt.Sprintf(`{"key":%d}`, s.KeyRing().Primary()), string(j.Spec))
}
