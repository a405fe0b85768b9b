package webpush

import (
	"slices"
	"strings"
)

// isPublicName tells whether a lower-case domain, without the dot at its end,
// can be a name of the public DNS. Apple refuses a subject that does not resolve
// with BadJwtToken, which stops every Safari, so names that never will are
// refused before.
func isPublicName(domain string) bool {
	if !strings.Contains(domain, ".") {
		return false
	}
	for _, reserved := range reservedNames() {
		if domain == reserved || strings.HasSuffix(domain, "."+reserved) {
			return false
		}
	}
	return true
}

// reservedNames are never delegated: RFC 2606 (test, example, invalid,
// localhost), RFC 6762 with its appendix G (local, and what private networks
// use), RFC 7686 (onion), RFC 8375 (home.arpa), RFC 9476 (alt), and internal,
// which ICANN reserved in 2024. example.com and its kin resolve.
func reservedNames() []string {
	return slices.Concat(
		[]string{"test", "example", "invalid", "localhost", "local", "onion", "alt", "internal", "arpa"},
		[]string{"intranet", "private", "corp", "home", "lan", "localdomain"})
}
