package demo

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// liveTable shows deliveries as they change: redrawn in place on a terminal,
// and once, when it is final, elsewhere.
type liveTable struct {
	out      io.Writer
	terminal int // its file descriptor; -1: out is none
	layout   func(head []string, rows [][]string) string
	targets  *targets
	lines    int // drawn last time
	last     string
}

func (d *demo) newLiveTable(t *targets) *liveTable {
	live := &liveTable{out: d.Out, terminal: -1, layout: d.Table, targets: t}
	if f, ok := d.Out.(interface{ Fd() uintptr }); ok && term.IsTerminal(int(f.Fd())) {
		live.terminal = int(f.Fd())
	}
	return live
}

func (t *liveTable) show(all map[string]delivery, final bool) {
	text := t.render(all)
	if text == t.last && !final || t.terminal < 0 && !final {
		return
	}
	if t.lines > 0 {
		_, _ = fmt.Fprintf(t.out, "\x1b[%dA\x1b[J", t.lines)
	}
	_, _ = fmt.Fprintln(t.out, t.fit(text))
	t.last = text
	if t.terminal >= 0 {
		t.lines = strings.Count(text, "\n") + 1
	}
}

// fit cuts lines to the width of the terminal: a line that wraps would be two when
// the table is drawn over.
func (t *liveTable) fit(text string) string {
	if t.terminal < 0 {
		return text
	}
	width, _, err := term.GetSize(t.terminal)
	if err != nil || width <= 0 {
		return text
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if r := []rune(l); len(r) > width {
			lines[i] = string(r[:width])
		}
	}
	return strings.Join(lines, "\n")
}

func (t *liveTable) render(all map[string]delivery) string {
	rows := make([][]string, 0, len(t.targets.list))
	done := 0
	for _, e := range t.targets.list {
		x, known := all[e.target]
		r := []string{"-", e.who, e.where, "not sent yet", "", "", "", ""}
		if known {
			r[0], r[3] = x.Channel, x.outcome()
			if x.Last != nil && x.Last.Number > 0 {
				r[4], r[5], r[6] = strconv.Itoa(x.Last.Number), shorten(x.Last.ProviderID, 20), fmt.Sprintf("%d ms", x.Last.DurationMS)
			}
			if x.final() {
				done++
				r[7] = e.note
			}
		}
		rows = append(rows, r)
	}
	table := t.layout([]string{"CHANNEL", "USER", "TARGET", "STATE", "ATTEMPTS", "PROVIDER'S ID", "TIME", ""}, rows)
	return table + "\n" + bar(done, len(t.targets.list))
}

// bar is the progress: how many deliveries have come to their ends.
func bar(done, of int) string {
	const width = 30
	full := width * done / max(of, 1)
	return fmt.Sprintf("[%s%s] %d of %d", strings.Repeat("#", full), strings.Repeat(".", width-full), done, of)
}

// shorten keeps the end of an id, which is what tells it apart.
func shorten(s string, most int) string {
	n := utf8.RuneCountInString(s)
	if n <= most {
		return s
	}
	return "..." + string([]rune(s)[n-most+3:])
}
