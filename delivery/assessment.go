package delivery

import "github.com/carillonhq/carillon/channels"

// Assessment is how far a verdict may be believed: what it may cost beyond its own
// delivery.
type Assessment struct {
	// Stale: the credential has a newer version than the one that was used, which
	// gives its own verdict.
	Stale bool
	// Believed: the device is gone. Otherwise it may be, and waits for a confirmation.
	Believed bool
	// Convicted: the credential is to blame for the refusal, and waits with all that
	// it serves. Otherwise the device alone is in doubt.
	Convicted bool
	// Alone: the refused device is, while others are served.
	Alone bool
}

// word is what a provider says of a credential when it is asked.
type word uint8

const (
	wordNone    word = iota // it was not asked, or there was no answer to go by
	wordWorks               // it takes the credential
	wordRefused             // it does not
)

// evidence is what is known of a credential version once a verdict of it counts.
type evidence struct {
	newest      bool // of the credential's versions
	proven      bool // it has had a success
	breakerOpen bool // so many were called gone lately that the credential is in doubt
	held        bool // it is held already, or its push service is, because it was refused
	word        word // of the provider, since the last success
	// enough targets of enough users were refused, nothing has succeeded since, and
	// the other nodes have been heard: see refusals.
	enough bool
	worked bool // something has succeeded lately
}

// assess says what a verdict may cost. What it costs to believe a wrong one is a
// device that hears nothing any more, or a tenant that sends nothing: a single
// target's refusal is a doubt about that target, until enough of them say the same
// or the provider does.
func assess(r channels.Result, k channels.Kind, e evidence) Assessment {
	if !e.newest {
		return Assessment{Stale: true}
	}
	switch r.Outcome {
	case channels.Gone:
		return Assessment{Believed: e.proven && !e.breakerOpen && !r.Doubtful}
	case channels.Denied:
		return Assessment{Convicted: e.convicts(r, k), Alone: e.worked}
	}
	return Assessment{}
}

func (e evidence) convicts(r channels.Result, k channels.Kind) bool {
	switch {
	case e.held, e.word == wordRefused:
		return true
	case e.word == wordWorks:
		return false
	case !canBeAsked(k) && r.Scope == channels.ScopeCredential:
		return true // it cannot even sign: no target has to do with it
	}
	return e.enough
}

// canBeAsked tells whether the provider of a channel says what it thinks of a
// credential without being given a message. A push service does not.
func canBeAsked(k channels.Kind) bool { return k == channels.FCM || k == channels.APNs }
