package delivery

// Assessment is how far a verdict of a credential may be believed.
type Assessment struct {
	// Proven: this version has had a success.
	Proven bool
	// BreakerOpen: so many targets were called gone lately that the credential
	// itself is in doubt.
	BreakerOpen bool
	// Stale: the credential has a newer version than the one that was used.
	Stale bool
}

// evidence is what is known of a credential version once a verdict of it counts.
type evidence struct {
	proven      bool // it has had a success
	breakerOpen bool
	newest      bool // of the credential's versions
}

// assess says how far a verdict may be believed. What it costs to believe a wrong
// one is a device that hears nothing any more.
func assess(e evidence) Assessment {
	return Assessment{Proven: e.proven, BreakerOpen: e.breakerOpen, Stale: !e.newest}
}
