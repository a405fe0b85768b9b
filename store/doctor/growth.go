package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

// Growth is how a database has grown.
type Growth struct {
	Space
	PerDay int64         // bytes that are used more; 0: not known yet
	Over   time.Duration // the time in which that was measured
	Oldest time.Time     // of the notifications that are kept; zero: there is none
}

const (
	// growthOver is about how far back growth is measured: the days of a week differ.
	growthOver = 7 * 24 * time.Hour
	// growthLeast is how much time tells anything: by night there is less to send.
	growthLeast = 20 * time.Hour
	// growthNotes is how far apart two notes are at least that are both kept.
	growthNotes = 24 * time.Hour
)

// sizeNote is what the database had at a time.
type sizeNote struct {
	At   int64 `json:"at"`
	Used int64 `json:"used"`
}

// NoteSize implements delivery.SizeStore: it keeps a note a day of the last week, and the
// newest.
func (s *Doctor) NoteSize(ctx context.Context, now time.Time) error {
	space, err := s.Space(ctx)
	if err != nil {
		return fmt.Errorf("look how large the database is: %w", err)
	}
	return s.db.Change(ctx, func(t *db.Tx) error {
		var text string
		if _, err := t.One("SELECT detail FROM installation WHERE name=?", []any{registers.FactSizes}, &text); err != nil {
			return err
		}
		text, err := withNote(text, sizeNote{db.Millis(now), space.Used})
		if err != nil {
			return err
		}
		return t.Exec(registers.SetFact, registers.FactSizes, db.Millis(now), "engine", text)
	})
}

// withNote adds a note to those that there are, the oldest of which is the newest that is
// old enough to measure by.
func withNote(text string, n sizeNote) (string, error) {
	notes := notesIn(text)
	if last := len(notes) - 1; last > 0 && notes[last].At-notes[last-1].At < growthNotes.Milliseconds() {
		notes = notes[:last]
	}
	notes = append(notes, n)
	for len(notes) > 1 && n.At-notes[1].At >= growthOver.Milliseconds() {
		notes = notes[1:]
	}
	b, err := json.Marshal(notes)
	return string(b), err
}

// notesIn reads notes. What cannot be read is begun anew.
func notesIn(text string) (notes []sizeNote) {
	if json.Unmarshal([]byte(text), &notes) != nil {
		return nil
	}
	return notes
}

// selectOldest asks for the first of each tenant by key.
const selectOldest = `SELECT coalesce(min(x.id),0) FROM (SELECT (SELECT min(n.id) FROM notifications n WHERE n.tenant_id=t.id) AS id FROM tenants t) x`

// growth compares what the database has with what it had, by the notes in a fact.
func (s *Doctor) growth(ctx context.Context, sizes string, now time.Time) (g Growth, err error) {
	if g.Space, err = s.Space(ctx); err != nil {
		return g, err
	}
	var oldest ids.ID
	if err := s.db.Lists().QueryRowContext(ctx, selectOldest).Scan(&oldest); err != nil {
		return g, err
	}
	if oldest != 0 {
		g.Oldest = oldest.Time()
	}
	if notes := notesIn(sizes); len(notes) > 0 {
		if over := now.Sub(db.FromMillis(notes[0].At)); over >= growthLeast {
			g.Over, g.PerDay = over, int64(float64(g.Used-notes[0].Used)/over.Hours()*24)
		}
	}
	return g, nil
}
