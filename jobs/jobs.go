// Package jobs is durable background work. A job is a row: it survives crashes,
// any node goes on with it, it shows how far it is, and it can be canceled.
//
// Work is done in steps. A step is one transaction of at most 1,000 rows that
// does a part of the work and moves the job's cursor and counters, fenced by the
// claim of the node that takes it. So a crash repeats nothing and loses nothing,
// and what was canceled does nothing more.
package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/ids"
)

// Kind says what a job does. The numbers are stored; a test pins them.
type Kind uint8

// The kinds.
const (
	// ReplayDeadLetters sends the dead letters of a tenant again that a filter
	// selects.
	ReplayDeadLetters Kind = 1
	// EraseUser removes what is stored of a user of a tenant.
	EraseUser Kind = 2
	// DeleteTenant removes the rows of a tenant. It is a job of the installation,
	// since the tenant's own go with it.
	DeleteTenant Kind = 3
	// RestoreDevices makes devices of a tenant active again that a filter selects.
	RestoreDevices Kind = 4
	// RetireDevices retires suspect devices of a tenant that a filter selects.
	RetireDevices Kind = 5
	// DeleteApp removes the devices of an app of a tenant that was deleted.
	DeleteApp Kind = 6
	// DropForDeletedEndpoints drops what a tenant has waiting for endpoints that were
	// deleted.
	DropForDeletedEndpoints Kind = 7
	// BringForward makes due, step by step, what a tenant has waiting for a credential,
	// a push service or an endpoint that works again.
	BringForward Kind = 9
	// ResealKeys seals the keys of all tenants with the primary key of the key ring. It
	// is a job of the installation.
	ResealKeys Kind = 10
)

// kinds has a row for each kind: its name, and whether it may be canceled, which
// is not so for what must not stop half way.
var kinds = [...]struct {
	name       string
	cancelable bool
}{
	ReplayDeadLetters: {"dead_letter_replay", true},
	EraseUser:         {"user_erasure", false},
	DeleteTenant:      {"tenant_deletion", false},
	RestoreDevices:    {"device_restore", true},
	RetireDevices:     {"device_retirement", true},
	DeleteApp:         {"app_deletion", false},

	DropForDeletedEndpoints: {"endpoint_deletion", false},
	BringForward:            {"bring_forward", true},
	ResealKeys:              {"key_ring_reseal", true},
}

func (k Kind) String() string {
	if int(k) < len(kinds) && kinds[k].name != "" {
		return kinds[k].name
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Cancelable tells whether a job of this kind may stop half way.
func (k Kind) Cancelable() bool { return int(k) < len(kinds) && kinds[k].cancelable }

// ParseKind reads a kind's name.
func ParseKind(s string) (Kind, bool) {
	for k, x := range kinds {
		if x.name == s && s != "" {
			return Kind(k), true
		}
	}
	return 0, false
}

// Kinds lists all kinds.
func Kinds() []Kind {
	var out []Kind
	for k, x := range kinds {
		if x.name != "" {
			out = append(out, Kind(k))
		}
	}
	return out
}

// State of a job. The numbers are stored, and the index of unfinished jobs is
// built on "state < 3"; a test pins them.
type State uint8

// The states.
const (
	// Queued: no step was taken yet. The first claim moves it out, or Cancel. A
	// crash changes nothing.
	Queued State = 1
	// Running: steps are taken, by whichever node claims the next one. The last
	// step moves it out, or Cancel, or an error that no retry mends. After a crash
	// the lease lapses and the step is taken again: it had not committed.
	Running State = 2
	// Done: the last step was taken. Final.
	Done State = 3
	// Canceled by a person. What was done until then stays done. Final.
	Canceled State = 4
	// Failed for the reason in Error. What was done until then stays done. Final.
	Failed State = 5
)

var stateNames = [...]string{Queued: "queued", Running: "running", Done: "done", Canceled: "canceled", Failed: "failed"}

func (s State) String() string {
	if int(s) < len(stateNames) && stateNames[s] != "" {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Unfinished tells whether steps are still to be taken.
func (s State) Unfinished() bool { return s < Done }

// States lists all states in order.
func States() []State { return []State{Queued, Running, Done, Canceled, Failed} }

// ParseState reads a state's name.
func ParseState(s string) (State, bool) {
	for n, name := range stateNames {
		if name == s && s != "" {
			return State(n), true
		}
	}
	return 0, false
}

// Job is one piece of background work.
type Job struct {
	ID     ids.ID
	Tenant ids.ID // 0: the installation
	Kind   Kind
	State  State
	Spec   json.RawMessage // what to do; checked when the job was made
	Cursor json.RawMessage // where the next step goes on; nil before the first
	Result json.RawMessage // what came of it; nil where there is nothing to tell

	Total   int // items counted ahead; 0: unknown
	Done    int // items done
	Skipped int // items that did not need it or could not have it, see Result
	Failed  int // items that went wrong

	Error   string // why it failed, or why the newest step has to be tried again
	Retries int    // steps in a row that have failed
	Actor   string // who made it

	CreatedAt  time.Time
	StartedAt  time.Time // zero: queued
	UpdatedAt  time.Time
	FinishedAt time.Time // zero: unfinished

	// LeaseUntil is when the next step may be taken: at the end of the lease of
	// the node that takes one now, or of a pause.
	LeaseUntil time.Time
	Claim      int64 // fences the step
}

// Progress is what a step has done.
type Progress struct {
	Done, Skipped, Failed int             // items of this step; they are added
	Total                 int             // of the job; 0: as it was
	Cursor                json.RawMessage // nil: as it was
	Result                json.RawMessage // nil: as it was
	NotBefore             time.Time       // when the next step may be taken; zero: at once
	End                   bool            // there is no next step
}

// Step takes the next step of a job, and tells what it has committed: a store
// writes the work and the progress in one transaction, and only if the claim
// still holds.
//
// An error means that nothing was committed. ErrLost: the job is not ours any
// more. Permanent: it has failed for good. Any other: the step is tried again
// after a pause.
type Step func(ctx context.Context, j Job) (Progress, error)

// ErrLost says that a job was canceled, or that another node has it.
var ErrLost = errors.New("the job was canceled, or another node has taken it over")

// Permanent makes an error one that no retry mends. Its text is shown to people:
// it must hold no secret and no content.
func Permanent(err error) error { return &permanent{err} }

type permanent struct{ err error }

func (p *permanent) Error() string { return p.err.Error() }
func (p *permanent) Unwrap() error { return p.err }

// Query selects jobs. Zero members select everything. Lists are newest first.
type Query struct {
	State State
	Kind  Kind
	After ids.ID // the last one of the page before
	Limit int    // 1 to 500
}

// Registry is what people do with jobs. A job that is absent, or of another
// tenant, is problem.NotFound. Tenant 0 is the installation: its jobs are no
// tenant's.
type Registry interface {
	Job(ctx context.Context, tenant, id ids.ID) (Job, error)
	Jobs(ctx context.Context, tenant ids.ID, q Query) ([]Job, error)
	// CancelJob ends a job before its next step, and writes who did it into the
	// audit. A job that was canceled before stays as it is; one that has ended
	// otherwise, or whose kind cannot be canceled, is problem.Conflict.
	CancelJob(ctx context.Context, tenant, id ids.ID, actor string) (Job, error)
}

// Store is what a Runner needs.
type Store interface {
	// ClaimJob leases the unfinished job of these kinds whose lease is over for
	// longest. Without one the job's ID is 0, and next is when the first of those
	// that wait may be claimed; zero: none waits.
	ClaimJob(ctx context.Context, o ClaimOrder) (j Job, next time.Time, err error)
	// ReturnJob gives a claimed job back, with its LeaseUntil, Retries and Error as
	// they are in j; false: the claim is lost.
	ReturnJob(ctx context.Context, j Job) (bool, error)
	// FailJob ends a claimed job with the reason; false: the claim is lost.
	FailJob(ctx context.Context, j Job, reason string) (bool, error)
}

// ClaimOrder asks for a job.
type ClaimOrder struct {
	Kinds []Kind
	Now   time.Time
	Lease time.Time
	Claim int64
}
