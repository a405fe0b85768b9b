package delivery

import (
	"sync"
	"time"

	"github.com/carillonhq/carillon/ids"
)

// What a refusal needs to cost more than its own delivery: that many targets of that
// many users were refused within a time, and no success was answered after the first
// of them. A target that never had a success counts half, since anybody can
// register one, and not at all while others are served. Nor does one that was refused
// already before others were served. Being told "too fast" by answers that name no
// scope counts by users alone (gates.throttled).
const (
	evidenceTargets = 5
	evidenceUsers   = 3
	evidenceLasts   = 10 * time.Minute
	// evidencePerUser is how many targets are remembered of a user, as many as are
	// enough: one who registers more leaves room for others.
	evidencePerUser = 2 * evidenceTargets
	// evidenceMost is how many targets are remembered of a subject: more say no more.
	evidenceMost = 64
	// servedLasts is how long it is remembered that a subject has served somebody:
	// longer than a refused delivery waits until it is looked at again.
	servedLasts = 2 * lookMostAlone
	// evidenceSettles is how long ago evidence must have become enough before it is
	// judged: what was sent beside it may be answered yet, and better. With several
	// nodes it is how long ago that was when an exchange between them begins: they hear
	// of it by their next, and say what has succeeded by the one after.
	evidenceSettles = time.Second
)

// subject is what is refused: a version of a credential, at one push service where
// the channel has many.
type subject struct {
	versionKey
	origin string
}

// Refusal is a target that was refused, as nodes tell each other.
type Refusal struct {
	Credential   ids.ID
	Version      int
	Origin       string // of a push service; "": the provider has one
	Tenant       ids.ID
	Target, User ids.ID
	Worked       bool   // something was sent to it before
	Again        bool   // it was refused before, and has had no success since; other nodes are not told
	Detail       string // what the provider said
	At           time.Time
}

func (r *Refusal) subject() subject {
	return subject{versionKey{r.Credential, r.Version}, r.Origin}
}

// Success is the newest success of a subject, as nodes tell each other.
type Success struct {
	Credential ids.ID
	Version    int
	Origin     string
	At         time.Time // when it was answered
}

func (s *Success) subject() subject {
	return subject{versionKey{s.Credential, s.Version}, s.Origin}
}

// refusals keep who was refused lately. They live in memory: a restart forgets them,
// which errs on the side of sending on.
type refusals struct {
	mu        sync.Mutex
	subjects  map[subject]*refused
	shared    bool      // there may be other nodes
	exchanged time.Time // when the last exchange with them began that has ended
}

// refused is what is known of a subject.
type refused struct {
	tenant  ids.ID
	success time.Time // answered: the newest of any node, or when it was to be judged anew
	mine    time.Time // the newest success of this node
	told    time.Time // of these, what the other nodes know
	newest  time.Time // the newest refusal of any node
	targets map[ids.ID]refusedTarget
	enough  time.Time // since when there is enough evidence; zero: there is not
	said    string    // with the newest refusal that counts
	asked   time.Time // when the provider was asked last; zero: never
	asking  bool
	word    word // what it said
}

type refusedTarget struct {
	user   ids.ID
	worked bool
	at     time.Time
	told   bool // the other nodes know of it
}

func (r *refusals) of(k subject) *refused {
	if r.subjects == nil {
		r.subjects = map[subject]*refused{}
	}
	x := r.subjects[k]
	if x == nil {
		x = &refused{targets: map[ids.ID]refusedTarget{}}
		r.subjects[k] = x
	}
	return x
}

// success notes one that was answered at a time: refusals before it count no more.
// What was asked before them and answered after them counts as well: in a broadcast
// everything is asked at once, and who is served is served by the same credential.
func (r *refusals) success(k subject, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.of(k)
	x.mine = latest(x.mine, at)
	x.clear(at)
}

// restart has a subject judged anew.
func (r *refusals) restart(k subject, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x := r.subjects[k]; x != nil {
		x.mine = latest(x.mine, now)
		x.clear(now)
	}
}

// clear forgets what a success at a time takes back.
func (x *refused) clear(at time.Time) {
	if !at.After(x.success) {
		return
	}
	x.success = at
	if x.asked.Before(at) {
		x.word = wordNone
	}
	if len(x.targets) == 0 {
		return
	}
	for id, t := range x.targets {
		if t.at.Before(at) {
			delete(x.targets, id)
		}
	}
	if !x.isEnough(time.Time{}, time.Time{}) {
		x.enough = time.Time{}
	}
}

// refuse notes that a target was refused. ask: the provider is to be asked what it
// thinks of the credential, and answered is to be told what came of it. enough: by
// this refusal the evidence has become enough, and is to be judged when it has settled.
func (r *refusals) refuse(n Refusal, askable bool) (ask, enough bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.of(n.subject())
	x.tenant = n.Tenant
	before := x.enough
	x.note(n, false)
	ask = askable && !x.asking && (x.asked.IsZero() || n.At.Sub(x.asked) >= probeApart)
	x.asking = x.asking || ask
	return ask, before.IsZero() && !x.enough.IsZero()
}

func (x *refused) note(n Refusal, told bool) {
	x.newest = latest(x.newest, n.At)
	if n.At.Before(x.success) {
		return
	}
	old, known := x.targets[n.Target]
	switch {
	case known && !n.At.After(old.at), !known && n.Again && !x.success.IsZero():
		return
	case !known && !x.hasRoom(n.User):
		x.drop(n.At.Add(-evidenceLasts))
		if !x.hasRoom(n.User) {
			return
		}
	}
	x.targets[n.Target] = refusedTarget{user: n.User, worked: n.Worked, at: n.At, told: told}
	if n.Detail != "" {
		x.said = n.Detail
	}
	if x.enough.IsZero() && x.isEnough(time.Time{}, n.At) {
		x.enough = n.At
	}
}

// hasRoom tells whether one more target of a user is remembered.
func (x *refused) hasRoom(user ids.ID) bool {
	n := 0
	for _, t := range x.targets {
		if t.user == user {
			n++
		}
	}
	return n < evidencePerUser && len(x.targets) < evidenceMost
}

// drop forgets what was refused before a time.
func (x *refused) drop(before time.Time) {
	for id, t := range x.targets {
		if t.at.Before(before) {
			delete(x.targets, id)
		}
	}
}

// isEnough tells whether those refused since a time, and within evidenceLasts of now,
// are enough.
func (x *refused) isEnough(since, now time.Time) bool {
	halves, users := 0, map[ids.ID]bool{}
	for _, t := range x.targets {
		if !t.at.After(since) || !now.IsZero() && now.Sub(t.at) > evidenceLasts {
			continue
		}
		switch served := !x.success.IsZero() && t.at.Sub(x.success) < evidenceLasts; {
		case t.worked:
			halves += 2
		case served:
			continue
		default:
			halves++
		}
		users[t.user] = true
	}
	return halves >= 2*evidenceTargets && len(users) >= evidenceUsers
}

// judged is what the refusals of a subject say.
type judged struct {
	enough bool
	word   word
	worked bool // something has succeeded lately
	said   string
}

// judge looks at the refusals since a time: whoever has put, paused or resumed the
// credential since has it judged anew.
func (r *refusals) judge(k subject, since, now time.Time) judged {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.subjects[k]
	if x == nil {
		return judged{}
	}
	j := judged{enough: !x.asking && r.settled(x, now) && x.isEnough(since, now), worked: !x.success.IsZero() && now.Sub(x.success) < evidenceLasts, said: x.said}
	if x.asked.After(since) {
		j.word = x.word
	}
	return j
}

// settled tells whether those have been heard who may know better: the other nodes, or
// on a node that is alone what was sent beside the evidence.
func (r *refusals) settled(x *refused, now time.Time) bool {
	heard := now
	if r.shared {
		heard = r.exchanged
	}
	return !x.enough.IsZero() && !heard.Before(x.enough.Add(evidenceSettles))
}

// answered notes what the provider said when it was asked at a time.
func (r *refusals) answered(k subject, w word, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.of(k)
	x.asking, x.asked = false, at
	if w == wordWorks {
		x.mine = latest(x.mine, at)
		x.clear(at)
	}
	x.word = w
}

// ripe lists what is to be judged now that the other nodes have been heard in an
// exchange that began at a time.
func (r *refusals) ripe(began time.Time) (list []Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exchanged = began
	for k, x := range r.subjects {
		if x.word == wordNone && r.settled(x, began) && x.tenant != 0 {
			list = append(list, Refusal{Credential: k.credential, Version: k.version, Origin: k.origin, Tenant: x.tenant})
		}
	}
	return list
}

// pending is what the other nodes have to know: who was refused here, and what has
// succeeded here since anybody was refused anywhere.
func (r *refusals) pending(now time.Time) (list []Refusal, successes []Success) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, x := range r.subjects {
		for id, t := range x.targets {
			if !t.told {
				list = append(list, Refusal{Credential: k.credential, Version: k.version, Origin: k.origin, Tenant: x.tenant,
					Target: id, User: t.user, Worked: t.worked, At: t.at, Detail: x.said})
			}
		}
		if x.mine.After(x.told) && x.newest.After(x.told) && now.Sub(x.newest) < evidenceLasts {
			successes = append(successes, Success{Credential: k.credential, Version: k.version, Origin: k.origin, At: x.mine})
		}
	}
	return list, successes
}

// markSent notes what the other nodes can read now.
func (r *refusals) markSent(list []Refusal, successes []Success) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range list {
		if x := r.subjects[n.subject()]; x != nil {
			if t, ok := x.targets[n.Target]; ok && t.at.Equal(n.At) {
				t.told = true
				x.targets[n.Target] = t
			}
		}
	}
	for _, s := range successes {
		if x := r.subjects[s.subject()]; x != nil {
			x.told = latest(x.told, s.At)
		}
	}
}

// merge takes up what the other nodes have told. answers: they wait for what has
// succeeded here.
func (r *refusals) merge(list []Refusal, successes []Success) (answers bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range list {
		x := r.of(n.subject())
		x.tenant = n.Tenant
		x.note(n, true)
		answers = answers || x.mine.After(x.told) && x.newest.After(x.told)
	}
	for _, s := range successes {
		r.of(s.subject()).clear(s.At)
	}
	return answers
}

// prune forgets versions that are not in use any more, and what nothing was heard of
// for long.
func (r *refusals) prune(inUse map[ids.ID]int, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, x := range r.subjects {
		x.drop(now.Add(-evidenceLasts))
		newest, used := inUse[k.credential]
		idle := len(x.targets) == 0 && !x.asking && now.Sub(latest(x.success, latest(x.newest, x.asked))) > servedLasts
		if !used || k.version < newest || idle {
			delete(r.subjects, k)
		} else if !x.isEnough(time.Time{}, now) {
			x.enough = time.Time{}
		}
	}
}
