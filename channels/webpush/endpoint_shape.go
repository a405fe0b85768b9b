package webpush

import (
	"net/url"
	"strings"
)

// shapes are how the paths of endpoints begin at push services that have other URLs,
// too: their hosts alone do not make a subscription, and what is sent to another of
// their URLs is refused in ways that say nothing of our key. Other hosts, such as
// those that an operator allows, may have any.
var shapes = []struct {
	host  string
	paths []string
}{
	{"fcm.googleapis.com", []string{"/fcm/send/", "/wp/", "/preprod/wp/"}},
	{"jmt17.google.com", []string{"/fcm/send/", "/wp/"}},
	{"*.push.services.mozilla.com", []string{"/wpush/"}},
	{"*.notify.windows.com", []string{"/w/"}},
}

// hasShape tells whether a URL can be an endpoint of its host's push service.
func hasShape(u *url.URL) bool {
	host := strings.ToLower(u.Hostname())
	for _, s := range shapes {
		below, wild := strings.CutPrefix(s.host, "*")
		if host != s.host && !(wild && strings.HasSuffix(host, below)) {
			continue
		}
		for _, p := range s.paths {
			if rest, ok := strings.CutPrefix(u.Path, p); ok && (rest != "" || u.RawQuery != "") {
				return true
			}
		}
		return false
	}
	return u.Path != "" && u.Path != "/" || u.RawQuery != ""
}
