package simulator

import "net/http"

// Handler is what a port does with a request, without the network.
func Handler(s *Simulator, overTLS bool) http.Handler {
	p := s.plain
	if overTLS {
		p = s.prod
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.handle(p, w, r) })
}
