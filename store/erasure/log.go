package erasure

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

// erasureLog is a file apart from the database in which every erasure is written
// before it happens: a backup that is restored brings back who was erased since,
// and the log tells whom to erase again. It names nobody: see Erasure.Subject.
type erasureLog struct {
	path string // "": there is none
	mu   sync.Mutex
}

// logged is a line of the log.
type logged struct {
	Version int       `json:"v"`
	At      time.Time `json:"at"`
	Tenant  string    `json:"tenant"` // ten_...
	Subject string    `json:"subject,omitempty"`
	Deleted bool      `json:"tenant_deleted,omitempty"`
}

const logVersion = 1

// append writes a line and returns when the disk has it.
func (l *erasureLog) append(e logged) error {
	if l.path == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Version = logVersion
	if err := l.write(e); err != nil {
		return errors.Join(&problem.Error{Code: problem.Unavailable, RetryAfter: 5 * time.Second,
			Detail: "The erasure log cannot be written, so nothing was erased; see the setting erasure_log."}, err)
	}
	return nil
}

func (l *erasureLog) write(e logged) (err error) {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return fmt.Errorf("create the folder of the erasure log: %w", err)
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the erasure log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open the erasure log: %w", err)
	}
	size := info.Size()
	if size > 0 {
		// A line that a crash has cut off was never confirmed; it must not spoil this one.
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, size-1); err != nil {
			return fmt.Errorf("read the erasure log: %w", err)
		}
		if last[0] != '\n' {
			line = append([]byte{'\n'}, line...)
		}
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write the erasure log: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write the erasure log: %w", err)
	}
	if size == 0 {
		return syncFolder(filepath.Dir(l.path))
	}
	return nil
}

// syncFolder makes the name of a new file survive a power cut.
func syncFolder(path string) error {
	d, err := os.Open(path) //nolint:gosec // the operator chooses the path
	if err != nil {
		return fmt.Errorf("open the folder of the erasure log: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// Reapplied tells what ApplyErasures did.
type Reapplied struct {
	Lines      int // of the log
	Users      int // erased again
	Tenants    int // deleted again
	Unreadable int // lines that a crash cut off, or that are not of a log
}

// pastErasures is what a log says of a tenant.
type pastErasures struct {
	deleted  bool
	subjects map[string]time.Time // when the subject was erased last
}

// ApplyErasures erases again whom a log says to have been erased, and deletes
// again the tenants that it says to have been deleted: after a restore, before
// anything is sent. Users who came back after their erasure stay, and so do those
// of tenants that this database does not have. It may be repeated. The rest is
// done by the jobs of the next server on the database.
func (s *Eraser) ApplyErasures(ctx context.Context, log io.Reader) (Reapplied, error) {
	past, done, err := readLog(log)
	if err != nil {
		return done, err
	}
	for id, p := range past {
		t, err := s.registers.Tenant(ctx, id)
		if problem.CodeOf(err) == problem.NotFound || err == nil && t.Deleting() {
			continue
		}
		if err != nil {
			return done, err
		}
		if p.deleted {
			if _, err := s.deleteTenant(ctx, id, tenants.Change{Actor: actorLog, Action: "tenant.delete"}); err != nil {
				return done, err
			}
			done.Tenants++
			continue
		}
		n, err := s.reapply(ctx, id, p.subjects)
		done.Users += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// actorLog is who erases what a log says.
const actorLog = "erasure-log"

func readLog(log io.Reader) (past map[ids.ID]pastErasures, done Reapplied, err error) {
	past = map[ids.ID]pastErasures{}
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		done.Lines++
		var e logged
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			done.Unreadable++
			continue
		}
		if e.Version > logVersion {
			return nil, done, fmt.Errorf("line %d of the erasure log was written by a newer version of Carillon; use that", done.Lines)
		}
		id, err := ids.Parse(ids.Tenant, e.Tenant)
		if err != nil || (e.Subject == "") == !e.Deleted {
			done.Unreadable++
			continue
		}
		p := past[id]
		if p.subjects == nil {
			p.subjects = map[string]time.Time{}
		}
		p.deleted = p.deleted || e.Deleted
		if e.Subject != "" && e.At.After(p.subjects[e.Subject]) {
			p.subjects[e.Subject] = e.At
		}
		past[id] = p
	}
	if err := lines.Err(); err != nil {
		return nil, done, fmt.Errorf("read the erasure log: %w", err)
	}
	return past, done, nil
}

// reapply erases the users of a tenant that were erased after they were first
// seen.
func (s *Eraser) reapply(ctx context.Context, tenant ids.ID, subjects map[string]time.Time) (n int, err error) {
	hash, err := s.subjects(ctx, tenant)
	if err != nil {
		return 0, err
	}
	erased := map[string]bool{}
	erase := func(user string, since time.Time, known bool) error {
		subject := hash(user)
		at, was := subjects[subject]
		if !was || since.After(at) || erased[user] {
			return nil
		}
		erased[user] = true
		if !known { // an erasure that is under way finds what only names the user
			if open, err := s.erasureOpen(ctx, tenant, subject); err != nil || open {
				return err
			}
		}
		_, _, err := s.eraseUser(ctx, tenant, user, actorLog, delivery.ErasureRepeated)
		if err == nil {
			n++
		}
		return err
	}
	type user struct {
		name string
		id   ids.ID
	}
	for after := ""; ; {
		rows, err := s.db.Lists().QueryContext(ctx, "SELECT external_id,id FROM users WHERE tenant_id=? AND external_id>? ORDER BY external_id LIMIT 1000", tenant, after)
		if err != nil {
			return n, fmt.Errorf("read users: %w", err)
		}
		list, err := db.Collect(rows, func(r *sql.Rows) (u user, err error) {
			err = r.Scan(&u.name, &u.id)
			return u, err
		})
		if err != nil {
			return n, err
		}
		for _, u := range list {
			if err := erase(u.name, u.id.Time(), true); err != nil {
				return n, err
			}
			after = u.name
		}
		if len(list) < 1000 {
			break
		}
	}
	// Users who are named in what is scheduled need not be known yet.
	err = s.scheduled(ctx, tenant, func(id ids.ID, to delivery.To) error {
		for _, name := range to.Users {
			if err := erase(name, id.Time(), false); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

func (s *Eraser) erasureOpen(ctx context.Context, tenant ids.ID, subject string) (open bool, err error) {
	raw, err := hex.DecodeString(subject)
	if err != nil {
		return false, err
	}
	n := 0
	err = s.db.Lists().QueryRowContext(ctx, "SELECT count(*) FROM erasures WHERE tenant_id=? AND finished_at=0 AND subject=?", tenant, raw).Scan(&n)
	return n > 0, err
}

// scheduled calls for every notification of a tenant whose targets are still to
// be resolved.
func (s *Eraser) scheduled(ctx context.Context, tenant ids.ID, each func(ids.ID, delivery.To) error) error {
	for after := ids.ID(0); ; {
		rows, err := s.db.Lists().QueryContext(ctx, "SELECT notification_id FROM fanouts WHERE tenant_id=? AND notification_id>? ORDER BY notification_id LIMIT 1000", tenant, after)
		if err != nil {
			return fmt.Errorf("read scheduled notifications: %w", err)
		}
		list, err := db.Collect(rows, db.ScanID)
		if err != nil {
			return err
		}
		for _, id := range list {
			after = id
			body, err := s.queue.Content(ctx, tenant, id)
			if problem.CodeOf(err) == problem.NotFound {
				continue
			}
			if err != nil {
				return err
			}
			var r delivery.Request
			if json.Unmarshal(body, &r) != nil {
				continue // the step that removes content takes what cannot be read
			}
			if err := each(id, r.To); err != nil {
				return err
			}
		}
		if len(list) < 1000 {
			return nil
		}
	}
}
