package tenants

// PutsOneAtATime tells whether somebody puts a credential right now, so that another
// has to wait.
func (r *Registry) PutsOneAtATime() bool {
	if r.putting.TryLock() {
		r.putting.Unlock()
		return false
	}
	return true
}
