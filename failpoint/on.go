//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// armed is written once, by Arm, before anything is hit.
var armed struct {
	actions map[string]*action
	times   map[string]time.Duration
}

// action is what happens at a point.
type action struct {
	kind  string // kill, panic or delay
	wait  time.Duration
	first int64 // 0: at every hit, else at this one alone
	hits  atomic.Int64
}

// Arm says what happens where. It is called once, before the program begins.
func Arm(spec string) error {
	armed.actions, armed.times = map[string]*action{}, map[string]time.Duration{}
	for part := range strings.SplitSeq(spec, ";") {
		if part == "" {
			continue
		}
		if err := arm(part); err != nil {
			return fmt.Errorf("%s: %q: %w", Variable, part, err)
		}
	}
	return nil
}

func arm(part string) error {
	name, what, ok := strings.Cut(part, "=")
	if !ok || !slices.Contains(slices.Concat(Names(), Times()), name) {
		return fmt.Errorf("is not <name>=<action> with one of the names %s, %s",
			strings.Join(Names(), " "), strings.Join(Times(), " "))
	}
	if slices.Contains(Times(), name) {
		d, err := time.ParseDuration(what)
		if err != nil || d <= 0 {
			return fmt.Errorf("%q is not a time, such as 2s", what)
		}
		armed.times[name] = d
		return nil
	}
	a := &action{}
	what, at, counted := strings.Cut(what, "@")
	if counted {
		n, err := strconv.ParseInt(at, 10, 64)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not the number of a hit, from 1", at)
		}
		a.first = n
	}
	var wait string
	a.kind, wait, _ = strings.Cut(what, ":")
	switch a.kind {
	case "kill", "panic":
		a.first = max(a.first, 1)
	case "delay":
		d, err := time.ParseDuration(wait)
		if err != nil || d <= 0 {
			return fmt.Errorf("%q is not a time, such as delay:50ms", wait)
		}
		a.wait = d
	default:
		return fmt.Errorf("%q is not an action; use kill, kill@<n>, panic, panic@<n>, delay:<time>", a.kind)
	}
	armed.actions[name] = a
	return nil
}

// Hit marks a point, and does there what Arm was told.
func Hit(name string) {
	a := armed.actions[name]
	if a == nil {
		return
	}
	if n := a.hits.Add(1); a.first > 0 && n != a.first {
		return
	}
	switch a.kind {
	case "delay":
		<-time.After(a.wait)
	case "panic":
		panic("fail point " + name)
	case "kill":
		_, _ = fmt.Fprintln(os.Stderr, Killed+name)
		if self, err := os.FindProcess(os.Getpid()); err == nil {
			_ = self.Kill()
		}
		select {} // nothing happens after it, as nothing does after a power cut
	}
}

// Duration is the time that Arm was told, or usual.
func Duration(name string, usual time.Duration) time.Duration {
	if d, ok := armed.times[name]; ok {
		return d
	}
	return usual
}
