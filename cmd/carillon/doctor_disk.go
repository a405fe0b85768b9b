package main

import (
	"fmt"
	"time"

	"github.com/carillonhq/carillon/store/doctor"
)

func checkDisk(d *doctor.Diagnosis, _ time.Time) []finding {
	f := d.SQLite
	switch {
	case f.Free < 0:
		return nil
	case f.Free < leastFree:
		return one(finding{fault, "disk", fmt.Sprintf("The volume of the database has %s left.", size(f.Free)),
			"When it is full nothing more is accepted, and outcomes cannot be written: what was sent may be sent again.", "Make room now: remove other files, or move the database to a bigger volume."})
	case f.Free < max(fewFree, f.Size):
		return one(finding{warning, "disk", fmt.Sprintf("The volume of the database has %s left, and the database has %s.", size(f.Free), size(f.Size)),
			"A burst, or a backup on the same volume, fills it.", "Make room for at least as much again as the database has."})
	}
	return nil
}

// The bounds of what is said about growth.
const (
	fullSoon   = 30 * 24 * time.Hour
	muchGrowth = 10 * gib
)

// checkGrowth goes by how much the database has grown lately. It grows like that until
// the oldest that it keeps is as old as rows are kept; one that is so old and still grows
// has more to keep than before, and may go on for as long again.
func checkGrowth(d *doctor.Diagnosis, now time.Time) []finding {
	g := &d.Growth
	if g.PerDay <= 0 || d.KeptFor <= 0 {
		return nil
	}
	goesOn, age := d.KeptFor, time.Duration(0)
	if !g.Oldest.IsZero() {
		age = now.Sub(g.Oldest)
	}
	if age < goesOn {
		goesOn -= age
	}
	toCome := int64(float64(g.PerDay) * goesOn.Hours() / 24)
	grows := fmt.Sprintf("The database has %s and has grown by %s a day (measured over %s). Rows are kept for %s, the oldest for %s so far, so about %s are to come.",
		size(g.Used), size(g.PerDay), days(g.Over), days(d.KeptFor), days(age), size(toCome))
	switch room := g.Room(); {
	case room >= 0:
		full := time.Duration(float64(room) / float64(g.PerDay) * 24 * float64(time.Hour))
		if full >= min(goesOn, fullSoon) {
			return nil
		}
		return one(finding{warning, "growth", fmt.Sprintf("At the present rate the volume of the database is full in %s: there is room for %s. ", days(full), size(room)) + grows,
			"When it is full nothing more is accepted, and outcomes cannot be written: what was sent may be sent again.",
			"Give the volume room for what is to come, or keep less: lower retention.rows, or the retention of the tenants that send most. docs/operations/durability.md has a table of sizes."})
	case toCome >= max(g.Used, muchGrowth):
		return one(finding{note, "growth", grows, "How much room the disk of PostgreSQL has is not known here; when it is full nothing more is accepted.",
			"See that it has room for what is to come, or keep less: lower retention.rows, or the retention of the tenants that send most. docs/operations/durability.md has a table of sizes."})
	}
	return nil
}

// days is a time for people who think in days.
func days(d time.Duration) string {
	if d < 48*time.Hour {
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= gib:
		return fmt.Sprintf("%.1f GiB", float64(n)/float64(gib))
	case n >= mib:
		return fmt.Sprintf("%d MiB", n/mib)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
