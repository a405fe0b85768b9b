package registers

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
)

// resealer brings the sealing keys of tenants under the primary key of the key ring, and
// seals what versions before have left in clear.
type resealer struct {
	db   *db.DB
	jobs *jobRegister
}

// resealSpec is the spec of the job.
type resealSpec struct {
	Key     uint32 `json:"key"`                // the primary one of the key ring when the job was made
	NewKeys bool   `json:"new_keys,omitempty"` // each tenant gets a key
}

// resealCursor is where it goes on: first the tenants, then the endpoints.
type resealCursor struct {
	Endpoints bool   `json:"endpoints,omitempty"`
	After     ids.ID `json:"after"`
}

// resealResult is what came of it: tenants whose keys do not open, and how many URLs
// were sealed.
type resealResult struct {
	Unopened []string `json:"unopened,omitempty"`
	URLs     int      `json:"urls_sealed,omitempty"`
}

// maxUnopened is how many tenants a result names.
const maxUnopened = 20

// selectKeysets walks the tenants that have keys.
const selectKeysets = `SELECT id,name,keyset FROM tenants WHERE id>? AND deleted_at=0 ORDER BY id LIMIT ?`

type keysetRow struct {
	id           ids.ID
	name         string
	sealed, anew []byte
	unopened     bool
}

func (s *resealer) keysets(ctx context.Context, after ids.ID) ([]keysetRow, error) {
	rows, err := s.db.Lists().QueryContext(ctx, selectKeysets, after, db.MaxBatch)
	if err != nil {
		return nil, fmt.Errorf("read the tenants' keys: %w", err)
	}
	return db.Collect(rows, func(r *sql.Rows) (x keysetRow, err error) { return x, r.Scan(&x.id, &x.name, &x.sealed) })
}

// CreateReseal makes the job that seals the keys of all tenants with the primary key
// of this process's key ring. newKeys: each gets a new key, too. One that is
// unfinished and the same is returned as it is.
func (s *resealer) CreateReseal(ctx context.Context, newKeys bool, actor string) (out jobs.Job, err error) {
	spec, err := json.Marshal(resealSpec{Key: s.db.KeyRing().Primary(), NewKeys: newKeys})
	if err != nil {
		return out, err
	}
	id, now := s.db.IDs().Next(), s.db.Now()
	err = s.db.Change(ctx, func(t *db.Tx) error {
		if err := t.Lock(0, "key_ring_reseal"); err != nil {
			return err
		}
		var open ids.ID
		found, err := t.One("SELECT id FROM jobs WHERE tenant_id=0 AND kind=? AND state<3 ORDER BY id LIMIT 1", []any{jobs.ResealKeys}, &open)
		if err != nil {
			return err
		}
		if found {
			if out, _, err = job(t, open); err == nil && !bytes.Equal(out.Spec, spec) {
				err = problem.New(problem.Conflict, "%s, which seals with another key or gives no new keys, is unfinished: wait for it, or cancel it with `carillon jobs cancel %s`.",
					open.Format(ids.Job), open.Format(ids.Job))
			}
			return err
		}
		total, err := t.Count("SELECT (SELECT count(*) FROM tenants WHERE deleted_at=0)+(SELECT count(*) FROM endpoints)")
		if err != nil {
			return err
		}
		if err := CreateJob(t, jobs.Job{ID: id, Kind: jobs.ResealKeys, Spec: spec, Total: int(total), Actor: actor, CreatedAt: now}, "key ring"); err != nil {
			return err
		}
		out, _, err = job(t, id)
		return err
	})
	return out, err
}

// ResealStep implements delivery.KeyRingStore.
func (s *resealer) ResealStep(ctx context.Context, j jobs.Job) (jobs.Progress, error) {
	var (
		spec   resealSpec
		c      resealCursor
		result resealResult
	)
	err := json.Unmarshal(j.Spec, &spec)
	if err == nil && j.Cursor != nil {
		err = json.Unmarshal(j.Cursor, &c)
	}
	if err == nil && j.Result != nil {
		err = json.Unmarshal(j.Result, &result)
	}
	if err != nil {
		return jobs.Progress{}, jobs.Permanent(problem.New(problem.Invalid, "The job cannot be read; make a new one."))
	}
	if has := s.db.KeyRing().Primary(); has != spec.Key {
		return jobs.Progress{}, problem.New(problem.Conflict, "A node has a key ring whose primary key is %d, not %d: give the rotated key ring to all nodes, or cancel this job and make another.", has, spec.Key)
	}
	// A version that does not look for new keys could not read what they have sealed.
	if err := s.db.OneVersion(ctx); err != nil {
		return jobs.Progress{}, err
	}
	if c.Endpoints {
		return s.sealStep(ctx, j, c, result)
	}
	return s.keysStep(ctx, j, spec, c, result)
}

// keysStep does a part of the tenants.
func (s *resealer) keysStep(ctx context.Context, j jobs.Job, spec resealSpec, c resealCursor, result resealResult) (jobs.Progress, error) {
	list, err := s.keysets(ctx, c.After)
	if err != nil {
		return jobs.Progress{}, err
	}
	changes := 1
	for i := range list {
		x := &list[i]
		if x.anew, err = s.db.KeyRing().Reseal(x.id, x.sealed, spec.NewKeys); err != nil {
			x.unopened = true
			if len(result.Unopened) < maxUnopened {
				result.Unopened = append(result.Unopened, x.name)
			}
		}
		if x.anew != nil {
			changes++
		}
	}
	p, err := s.jobs.Step(ctx, j, changes, func(t *db.Tx) (jobs.Progress, error) {
		p, err := reseal(t, list)
		next := resealCursor{Endpoints: true}
		if len(list) == db.MaxBatch {
			next = resealCursor{After: list[len(list)-1].id}
		} else if err == nil {
			err = closeToOlder(t)
		}
		return p.at(next, result, err)
	})
	if err == nil {
		for _, x := range list {
			if x.anew != nil {
				s.db.ForgetKeys(x.id)
			}
		}
	}
	return p, err
}

// reseal writes keys that are still as they were read: those of a tenant that was
// deleted meanwhile stay destroyed.
func reseal(t *db.Tx, list []keysetRow) (p resealed, err error) {
	for _, x := range list {
		switch {
		case x.unopened:
			p.Failed++
		case x.anew == nil:
			p.Skipped++
		default:
			n, err := t.Affect("UPDATE tenants SET keyset=? WHERE id=? AND deleted_at=0 AND keyset=?", x.anew, x.id, x.sealed)
			if err != nil {
				return p, fmt.Errorf("reseal the keys of a tenant: %w", err)
			}
			p.Done += int(n)
			p.Skipped += 1 - int(n)
		}
	}
	return p, nil
}

// sealStep does a part of the endpoints.
func (s *resealer) sealStep(ctx context.Context, j jobs.Job, c resealCursor, result resealResult) (jobs.Progress, error) {
	list, failed, err := s.urls(ctx, c.After)
	if err != nil {
		return jobs.Progress{}, err
	}
	p, err := s.jobs.Step(ctx, j, 1+len(list), func(t *db.Tx) (jobs.Progress, error) {
		n, err := sealURLs(t, list)
		p, was := resealed{Done: n, Failed: failed, Skipped: len(list) - n - failed}, result
		was.URLs += n
		if p.End = len(list) < db.MaxBatch; !p.End {
			c.After = list[len(list)-1].id
		}
		return p.at(c, was, err)
	})
	if err == nil && p.End {
		if _, err := s.db.Flush(ctx); err != nil && ctx.Err() == nil { // old pages go by themselves a little later
			s.db.Log().Warn("the write-ahead log could not be emptied after URLs were sealed", "error", err)
		}
	}
	return p, err
}

// resealed is what a step has done.
type resealed jobs.Progress

func (p resealed) at(c resealCursor, result resealResult, err error) (jobs.Progress, error) {
	if err == nil {
		p.Cursor, err = json.Marshal(c)
	}
	if err == nil && (result.URLs > 0 || result.Unopened != nil) {
		p.Result, err = json.Marshal(result)
	}
	return jobs.Progress(p), err
}

// Keysets is how the keys of tenants are sealed.
type Keysets struct {
	By         map[uint32]int // tenants by the key of the key ring that seals theirs
	AESGCM     int            // tenants who seal with AES-GCM
	Unreadable int
}

// Keysets counts them; AESGCM is left out without a key ring.
func (s *resealer) Keysets(ctx context.Context) (Keysets, error) {
	out := Keysets{By: map[uint32]int{}}
	for after := ids.ID(0); ; {
		list, err := s.keysets(ctx, after)
		if err != nil {
			return out, err
		}
		for _, x := range list {
			by, err := db.SealedBy(x.sealed)
			if err != nil {
				out.Unreadable++
				continue
			}
			out.By[by]++
			if ring := s.db.KeyRing(); ring != nil {
				if with, err := ring.SealsWith(x.id, x.sealed); err == nil && with != db.XChaCha {
					out.AESGCM++
				}
			}
		}
		if len(list) < db.MaxBatch {
			return out, nil
		}
		after = list[len(list)-1].id
	}
}
