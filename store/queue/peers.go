package queue

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store/db"
)

const (
	// usesLast is how long it counts on other nodes what one uses of a limit,
	// should it not say so again.
	usesLast = 3 * time.Second
	// verdictsLast is the same for verdicts.
	verdictsLast = 10 * time.Minute
	// forgetEvery is how often what nobody reads any more is removed.
	forgetEvery = time.Minute
	forgetLimit = 1000
	// tellLimit is how many rows are written in one transaction.
	tellLimit = 500
)

// peers is what nodes tell each other about sending.
type peers struct {
	db       *db.DB
	forgetAt atomic.Int64 // when shared rows are looked through again, unix ms
}

// Exchange writes what this node tells the others, and reads what they told.
func (s *peers) Exchange(ctx context.Context, mine delivery.NodeState) (delivery.OtherNodes, error) {
	life := s.db.Life()
	if life == 0 {
		return delivery.OtherNodes{Serving: 1}, nil
	}
	if err := s.tell(ctx, life, mine); err != nil {
		return delivery.OtherNodes{}, fmt.Errorf("tell the other nodes: %w", err)
	}
	others, err := s.ask(ctx, life, mine.KnownSince)
	if err != nil {
		return others, fmt.Errorf("ask the other nodes: %w", err)
	}
	if due := s.forgetAt.Load(); db.Millis(s.db.Now()) >= due {
		s.forgetAt.Store(db.Millis(s.db.Now().Add(forgetEvery)))
		err = s.forget(ctx)
	}
	return others, err
}

// Each statement writes the rows of its VALUES, in the order of their keys, so
// that nodes which write the same rows do not wait for each other in a circle.
const (
	tellVerdicts = `INSERT INTO shared_verdicts (credential_id,version,life,seen,gone,since,newest) VALUES %s
 ON CONFLICT (credential_id,version,life) DO UPDATE SET seen=excluded.seen, gone=excluded.gone, since=excluded.since, newest=excluded.newest`
	tellRefusals = `INSERT INTO shared_refusals (credential_id,version,origin,target_id,tenant,user_id,worked,detail,at,noted_at) VALUES %s
 ON CONFLICT (credential_id,version,origin,target_id) DO UPDATE SET at=excluded.at, worked=excluded.worked, detail=excluded.detail, noted_at=excluded.noted_at WHERE shared_refusals.at<excluded.at`
	tellSuccesses = `INSERT INTO shared_successes (credential_id,version,origin,began,noted_at) VALUES %s
 ON CONFLICT (credential_id,version,origin) DO UPDATE SET began=excluded.began, noted_at=excluded.noted_at WHERE shared_successes.began<excluded.began`
	tellUses = `INSERT INTO shared_uses (kind,subject,life,per_second,noted_at) VALUES %s
 ON CONFLICT (kind,subject,life) DO UPDATE SET per_second=excluded.per_second, noted_at=excluded.noted_at`
)

func (s *peers) tell(ctx context.Context, life int64, mine delivery.NodeState) error {
	slices.SortFunc(mine.Refusals, func(a, b delivery.Refusal) int {
		return cmp.Or(cmp.Compare(a.Credential, b.Credential), cmp.Compare(a.Version, b.Version), strings.Compare(a.Origin, b.Origin), cmp.Compare(a.Target, b.Target))
	})
	slices.SortFunc(mine.Successes, func(a, b delivery.Success) int {
		return cmp.Or(cmp.Compare(a.Credential, b.Credential), cmp.Compare(a.Version, b.Version), strings.Compare(a.Origin, b.Origin))
	})
	now := s.db.Now()
	var verdicts, uses, refusals, successes [][]any
	for _, r := range mine.Refusals {
		refusals = append(refusals, []any{r.Credential, r.Version, r.Origin, r.Target, r.Tenant, r.User, db.Bit(r.Worked), db.Storable(r.Detail), db.Millis(r.At), db.Millis(now)})
	}
	for _, x := range mine.Successes {
		successes = append(successes, []any{x.Credential, x.Version, x.Origin, db.Millis(x.At), db.Millis(now)})
	}
	for _, v := range mine.Verdicts {
		verdicts = append(verdicts, []any{v.Credential, v.Version, life, v.Seen, v.Gone, db.Millis(v.Since), db.Millis(v.Newest)})
	}
	for _, u := range mine.Uses {
		uses = append(uses, []any{u.Kind, u.Subject, life, u.PerSecond, db.Millis(now)})
	}
	for _, w := range []struct {
		into string
		rows [][]any
	}{{tellVerdicts, verdicts}, {tellRefusals, refusals}, {tellSuccesses, successes}, {tellUses, uses}} {
		for rows := range slices.Chunk(w.rows, tellLimit) {
			if err := s.db.Do(ctx, len(rows), func(t *db.Tx) error { return insert(t, w.into, rows) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// insert writes rows, several with a statement. There are few sizes of it, so that
// few statements have to be prepared.
func insert(t *db.Tx, into string, rows [][]any) error {
	for len(rows) > 0 {
		n := 1
		switch {
		case len(rows) >= 64:
			n = 64
		case len(rows) >= 8:
			n = 8
		}
		row := ",(?" + strings.Repeat(",?", len(rows[0])-1) + ")"
		if err := t.Exec(fmt.Sprintf(into, strings.Repeat(row, n)[1:]), slices.Concat(rows[:n]...)...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// Nodes that are alive: see db.Node.
const (
	countServing = "SELECT count(*) FROM nodes WHERE token<>0 AND beat_at>=? AND role IN ('all','api')"
	askVerdicts  = `SELECT v.credential_id,v.version,CAST(SUM(v.seen) AS BIGINT),CAST(SUM(v.gone) AS BIGINT),MIN(v.since),MAX(v.newest)
 FROM shared_verdicts v JOIN nodes n ON n.token=v.life WHERE v.life<>? AND n.beat_at>=? AND v.newest>=? GROUP BY v.credential_id,v.version`
	askRefusals  = `SELECT credential_id,version,origin,tenant,target_id,user_id,worked,detail,at FROM shared_refusals WHERE noted_at>=? AND at>=?`
	askSuccesses = `SELECT credential_id,version,origin,began FROM shared_successes WHERE noted_at>=? AND began>=?`
	askUses      = `SELECT u.kind,u.subject,SUM(u.per_second)
 FROM shared_uses u JOIN nodes n ON n.token=u.life WHERE u.life<>? AND n.beat_at>=? AND u.noted_at>=? GROUP BY u.kind,u.subject`
)

func (s *peers) ask(ctx context.Context, life int64, known time.Time) (o delivery.OtherNodes, err error) {
	now := s.db.Now()
	alive := db.Millis(now.Add(-db.DeadAfter))
	if err := s.db.QueryRow(ctx, countServing, alive).Scan(&o.Serving); err != nil {
		return o, err
	}
	o.Verdicts, err = read(ctx, s.db, func(r *sql.Rows) (v delivery.Verdicts, err error) {
		var since, newest int64
		err = r.Scan(&v.Credential, &v.Version, &v.Seen, &v.Gone, &since, &newest)
		v.Since, v.Newest = db.FromMillis(since), db.FromMillis(newest)
		return v, err
	}, askVerdicts, life, alive, db.Millis(now.Add(-verdictsLast)))
	if err != nil {
		return o, err
	}
	lately := db.Millis(now.Add(-verdictsLast))
	o.Refusals, err = read(ctx, s.db, func(r *sql.Rows) (x delivery.Refusal, err error) {
		var at int64
		err = r.Scan(&x.Credential, &x.Version, &x.Origin, &x.Tenant, &x.Target, &x.User, &x.Worked, &x.Detail, &at)
		x.At = db.FromMillis(at)
		return x, err
	}, askRefusals, db.Millis(known), lately)
	if err != nil {
		return o, err
	}
	o.Successes, err = read(ctx, s.db, func(r *sql.Rows) (x delivery.Success, err error) {
		var at int64
		err = r.Scan(&x.Credential, &x.Version, &x.Origin, &at)
		x.At = db.FromMillis(at)
		return x, err
	}, askSuccesses, db.Millis(known), lately)
	if err != nil {
		return o, err
	}
	o.Uses, err = read(ctx, s.db, func(r *sql.Rows) (u delivery.Use, err error) {
		return u, r.Scan(&u.Kind, &u.Subject, &u.PerSecond)
	}, askUses, life, alive, db.Millis(now.Add(-usesLast)))
	return o, err
}

func read[T any](ctx context.Context, d *db.DB, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	rows, err := d.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return db.Collect(rows, scan)
}

// forget removes what nobody reads any more; one node does it for all.
func (s *peers) forget(ctx context.Context) error {
	mine, err := s.db.TakeDuty(ctx, "shared", forgetEvery*9/10)
	if err != nil || !mine {
		return err
	}
	now := s.db.Now()
	for _, d := range []struct {
		query string
		args  []any
	}{
		{`DELETE FROM shared_verdicts WHERE (credential_id,version,life) IN (SELECT v.credential_id,v.version,v.life FROM shared_verdicts v
 WHERE v.newest<? OR NOT EXISTS (SELECT 1 FROM nodes n WHERE n.token=v.life) LIMIT ?)`, []any{db.Millis(now.Add(-verdictsLast))}},
		{`DELETE FROM shared_refusals WHERE (credential_id,version,origin,target_id) IN (SELECT credential_id,version,origin,target_id FROM shared_refusals
 WHERE noted_at<? ORDER BY noted_at LIMIT ?)`, []any{db.Millis(now.Add(-verdictsLast))}},
		{`DELETE FROM shared_successes WHERE (credential_id,version,origin) IN (SELECT credential_id,version,origin FROM shared_successes
 WHERE noted_at<? ORDER BY noted_at LIMIT ?)`, []any{db.Millis(now.Add(-verdictsLast))}},
		{`DELETE FROM shared_uses WHERE (kind,subject,life) IN (SELECT kind,subject,life FROM shared_uses WHERE noted_at<? LIMIT ?)`,
			[]any{db.Millis(now.Add(-forgetEvery))}},
	} {
		for n := int64(forgetLimit); n == forgetLimit; {
			if err := s.db.Do(ctx, forgetLimit, func(t *db.Tx) (err error) {
				n, err = t.Affect(d.query, append(d.args, forgetLimit)...)
				return err
			}); err != nil {
				return err
			}
		}
	}
	return nil
}
