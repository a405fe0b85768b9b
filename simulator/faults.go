package simulator

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
)

// faults are those in force: set by hand for a target or a channel, and how
// often each address that asks for a fault has met it.
type faults struct {
	count  atomic.Int32 // of rules; 0 spares every request the lock
	mu     sync.RWMutex
	rules  map[string]*rule
	served sync.Map // channel and address -> *atomic.Int64
}

type rule struct {
	fault  Fault
	served atomic.Int64
}

// find gives the fault that a request meets, and counts it. A rule for the
// target goes before a rule for the channel, and that before what the address
// asks for.
func (f *faults) find(x *exchange) (Fault, bool) {
	if f.count.Load() > 0 {
		f.mu.RLock()
		byTarget, byChannel := f.rules[x.target], f.rules[string(x.channel)]
		f.mu.RUnlock()
		for _, r := range []*rule{byTarget, byChannel} {
			if r != nil && strikes(r.fault, &r.served) {
				return r.fault, true
			}
		}
	}
	if !x.asked {
		return Fault{}, false
	}
	if x.fault.Times == 0 {
		return x.fault, true
	}
	served, _ := f.served.LoadOrStore(string(x.channel)+" "+x.target, new(atomic.Int64))
	return x.fault, strikes(x.fault, served.(*atomic.Int64))
}

func strikes(f Fault, served *atomic.Int64) bool {
	return f.Times == 0 || served.Add(1) <= int64(f.Times)
}

func (f *faults) set(target string, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rules == nil {
		f.rules = map[string]*rule{}
	}
	f.rules[canonicalTarget(target)] = &rule{fault: fault}
	f.count.Store(int32(len(f.rules)))
}

// clear removes the rule of a target, or all rules for "".
func (f *faults) clear(target string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if target == "" {
		clear(f.rules)
	} else {
		delete(f.rules, canonicalTarget(target))
	}
	f.count.Store(int32(len(f.rules)))
}

func (f *faults) all() map[string]Fault {
	f.mu.RLock()
	defer f.mu.RUnlock()
	out := make(map[string]Fault, len(f.rules))
	for target, r := range maps.All(f.rules) {
		out[target] = r.fault
	}
	return out
}

// restart forgets how often each fault was met.
func (f *faults) restart() {
	f.served.Clear()
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, r := range f.rules {
		r.served.Store(0)
	}
}

// canonicalTarget turns the URL of a push endpoint or a webhook receiver into
// the name by which arrivals know it, and an APNs token into lower case.
func canonicalTarget(target string) string {
	for _, path := range []string{pushPath, hookPath} {
		if _, name, ok := strings.Cut(target, path); ok && strings.Contains(target, "://") {
			return name
		}
	}
	if lower := strings.ToLower(target); isDeviceToken(lower) {
		return lower
	}
	return target
}

// SetFault makes every good request for a target meet f, until ClearFault or
// f.Times. A target is an FCM token (or fid, or "topic:<name>"), an APNs token,
// a push endpoint, the name or URL of a webhook receiver, or the name of a whole
// channel.
func (s *Simulator) SetFault(target string, f Fault) { s.core.faults.set(target, f) }

// ClearFault ends what SetFault began; "" ends everything.
func (s *Simulator) ClearFault(target string) { s.core.faults.clear(target) }
