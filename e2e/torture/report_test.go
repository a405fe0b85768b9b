package torture_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/carillonhq/carillon/failpoint"
)

// report adds up what the rounds came to.
type report struct {
	database   string
	nodes      int
	rounds     map[string]int
	kills      int            // at random moments
	points     map[string]int // kills at fail points
	accepted   int
	deliveries int
	states     map[string]int
	findings   map[string]int
	flagged    int
	recovery   []time.Duration
	cuts       int // of the power
	harsh      int // those in which what was not synced is gone
}

func newReport(database string, nodes int) *report {
	return &report{database: database, nodes: nodes, rounds: map[string]int{}, points: map[string]int{}, states: map[string]int{}, findings: map[string]int{}}
}

func (r *report) add(kind string, v *verdict) {
	r.rounds[kind]++
	r.accepted += v.accepted
	r.deliveries += v.deliveries
	r.flagged += v.flagged
	for s, n := range v.states {
		r.states[s] += n
	}
	for _, f := range v.findings {
		r.findings[f.Kind]++
	}
}

func (r *report) recovered(d time.Duration) { r.recovery = append(r.recovery, d) }

// missed lists the fail points at which nothing was killed.
func (r *report) missed() (names []string) {
	for _, name := range failpoint.Names() {
		if r.points[name] == 0 {
			names = append(names, name)
		}
	}
	return names
}

func (r *report) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	row := func(name string, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("database", "%s", r.database)
	row("nodes", "%d", r.nodes)
	total := 0
	for _, n := range r.rounds {
		total += n
	}
	row("rounds", "%d (%s)", total, counted(r.rounds))
	if r.cuts > 0 {
		row("power cuts", "%d, in %d of which everything was gone that was not synced", r.cuts, r.harsh)
	}
	atPoints := 0
	for _, n := range r.points {
		atPoints += n
	}
	row("kills", "%d at random moments, %d at fail points", r.kills, atPoints)
	row("accepted", "%d notifications", r.accepted)
	row("deliveries", "%d (%s)", r.deliveries, counted(r.states))
	row("lost", "%d", r.findings[lost]+r.findings[unfinished]+r.findings[unexplained]+r.findings[phantom])
	row("duplicates", "%d flagged, %d unflagged", r.flagged, r.findings[duplicate])
	others := maps.Clone(r.findings)
	for _, kind := range []string{lost, unfinished, unexplained, phantom, duplicate} {
		delete(others, kind)
	}
	if len(others) > 0 {
		row("other findings", "%s", counted(others))
	}
	if n := len(r.recovery); n > 0 {
		slices.Sort(r.recovery)
		row("recovery", "median %s, longest %s, of %d starts", r.recovery[n/2].Round(time.Millisecond), r.recovery[n-1].Round(time.Millisecond), n)
	}
	for _, name := range failpoint.Names() {
		if atPoints > 0 {
			row("  "+name, "%d", r.points[name])
		}
	}
	_ = w.Flush()
	return b.String()
}

// counted prints names with their counts, in order.
func counted(m map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, m[name]))
	}
	return strings.Join(parts, ", ")
}
