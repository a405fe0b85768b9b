// Package failpoint lets tests stop the program at an instant that they name: it
// is killed between a commit and the answer about it, say, which no timing from
// outside would hit.
//
// In a usual build Hit and Duration do nothing and cost nothing. In one with the
// build tag failpoints they do what Arm was told:
//
//	accept.committed=kill@37;send.answered=delay:50ms;send_timeout=2s
//
// is SIGKILL at the 37th accept that has just been committed, 50 ms of waiting
// at every answer of a provider, and two seconds for a request to a provider.
package failpoint

// Variable is the environment variable that holds what Arm is told.
const Variable = "CARILLON_FAILPOINTS"

// Point is a place in the program where a test may stop it.
type Point struct {
	Name  string
	Means string // what has just happened there, or is about to
}

// Points lists all places, in the order of a delivery's life. A test of this
// package keeps it equal to what the source says.
func Points() []Point {
	return []Point{
		{"accept.begin", "a notification is checked and planned, nothing of it is written"},
		{"accept.written", "it is written, but its transaction is not committed"},
		{"accept.committed", "it is committed, its deliveries are not queued and the caller has no answer"},
		{"accept.queued", "its deliveries are queued, the caller has no answer"},
		{"unfold.begin", "a scheduled notification is due and its targets are known, nothing is written"},
		{"unfold.written", "its deliveries are written and its marker is removed, but not committed"},
		{"unfold.committed", "its deliveries are committed, the engine has not been told"},
		{"claim.written", "due deliveries are leased, but not committed"},
		{"claim.committed", "they are committed, and not queued yet"},
		{"begin.committed", "it is written that an attempt which must not be made twice begins; no byte is sent"},
		{"send.begin", "a request is about to be made"},
		{"send.answered", "the provider has answered, the outcome is not on its way to the database"},
		{"finish.written", "an outcome is written, but not committed"},
		{"finish.committed", "an outcome is committed, the engine has not been told"},
		{"hold.opened", "a hold is opened by an outcome, but not committed"},
		{"hold.committed", "an outcome that opened a hold is committed, the engine has not been told"},
		{"resume.begin", "a hold ends, none of its deliveries has been moved"},
		{"resume.written", "some of its deliveries are moved, but not committed"},
		{"resume.between", "some of its deliveries are moved and committed, others wait"},
		{"resume.ended", "the last of them is moved and the hold is gone, the engine has not been told"},
		{"replay.begin", "a dead letter is to be sent again, nothing is written"},
		{"replay.written", "it is pending again, but not committed"},
		{"replay.committed", "it is pending again, the caller has no answer"},
		{"cancel.written", "a notification is canceled, but not committed"},
		{"cancel.committed", "it is canceled, the caller has no answer"},
	}
}

// Names lists the names of all points.
func Names() []string {
	names := make([]string, len(Points()))
	for i, p := range Points() {
		names[i] = p.Name
	}
	return names
}

// Times lists the names that Duration is asked for: times of the engine that a
// test cannot wait for.
func Times() []string { return []string{"send_timeout", "marker_after"} }

// Killed begins the line on standard error that names the point at which the
// program kills itself.
const Killed = "killed at fail point "
