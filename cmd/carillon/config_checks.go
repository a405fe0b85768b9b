package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store/db"
)

// rule says what a setting may be.
type rule struct {
	fault   func() string // what is wrong with the value, "" if nothing is; nil: nothing ever is
	allowed string        // for the reference, in Markdown
}

// keywords is how libpq writes a connection besides a URL.
var keywords = regexp.MustCompile(`(^|\s)(host|hostaddr|port|user|password|dbname)\s*=`)

// A URL that is not written well would be taken for the path of a file, which errors
// show, and with it the password: what begins like one, or has a password in it, is
// refused. A scheme has two letters at least, since one is a drive of Windows.
var (
	scheme      = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]+:`)
	credentials = regexp.MustCompile(`:[^/\\]*@`)
)

func (c *Config) checkDatabase() rule  { return rule{fault: c.databaseFault} }
func (c *Config) checkKeyRing() rule   { return rule{fault: c.keyRingFault} }
func (c *Config) checkTokenURIs() rule { return rule{fault: c.tokenURIsFault, allowed: "URLs"} }

func (c *Config) databaseFault() string {
	const file = "; give the path of an SQLite file, such as ./carillon.db or sqlite:./carillon.db, or postgres://user:password@host:5432/name"
	path := strings.TrimPrefix(c.DatabaseURL, "sqlite:")
	switch {
	case db.IsPostgres(c.DatabaseURL):
		return db.CheckURL(c.DatabaseURL)
	case keywords.MatchString(c.DatabaseURL): // as a file it would be made, with a password for its name
		return "is written as key=value; give it as postgres://user:password@host:5432/name"
	case strings.HasPrefix(c.DatabaseURL, "file:"):
		return "is a URI of SQLite; give the path of the file, such as ./carillon.db"
	case scheme.MatchString(path) && strings.HasPrefix(path, scheme.FindString(path)+"//"):
		return fmt.Sprintf("has the scheme %q%s", strings.TrimSuffix(scheme.FindString(path), ":"), file)
	case scheme.MatchString(path), strings.Contains(path, "://"), credentials.MatchString(path):
		return "is neither a path nor a URL of PostgreSQL" + file
	case path == "":
		return "names no file; give the path of an SQLite file, such as ./carillon.db"
	case c.Role != delivery.RoleAll:
		return fmt.Sprintf("names an SQLite file, which has one server that does all; the role %s needs PostgreSQL", c.Role)
	}
	return ""
}

func (c *Config) keyRingFault() string {
	if c.KeyRing != "" && c.KeyRingFile != "" {
		return "is set beside key_ring_file; set one of them"
	}
	return ""
}

func (c *Config) tokenURIsFault() string {
	for _, u := range c.FCM.TokenURIs {
		if why := urlFault(u); why != "" {
			return why
		}
	}
	return ""
}

func address(s *string) rule {
	return rule{allowed: "`host:port`", fault: func() string {
		_, port, err := net.SplitHostPort(*s)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return fmt.Sprintf("%q is not an address; use host:port, such as 127.0.0.1:8080 or :8080", *s)
		}
		return ""
	}}
}

func addressOrOff(s *string) rule {
	return rule{allowed: "`host:port`, `off`", fault: func() string {
		if *s == "off" {
			return ""
		}
		return address(s).fault()
	}}
}

func plain(s *string, most int) rule {
	return rule{allowed: fmt.Sprintf("up to %d ASCII characters", most), fault: func() string {
		if len(*s) > most || strings.ContainsFunc(*s, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Sprintf("%q cannot be used; take at most %d ASCII characters without spaces", *s, most)
		}
		return ""
	}}
}

func oneOf(s *string, choices ...string) rule {
	return rule{allowed: "`" + strings.Join(choices, "`, `") + "`", fault: func() string {
		if !slices.Contains(choices, *s) {
			return fmt.Sprintf("%q is not a choice; use %s", *s, strings.Join(choices, ", "))
		}
		return ""
	}}
}

func within[N int | int64 | float64](n *N, least, most N) rule {
	return rule{allowed: formatNumber(least) + " to " + formatNumber(most), fault: func() string {
		if !(*n >= least && *n <= most) { // so that NaN is refused
			return fmt.Sprintf("%v is out of range; use %v to %v", *n, formatNumber(least), formatNumber(most))
		}
		return ""
	}}
}

func between(d *time.Duration, least, most time.Duration) rule {
	return rule{allowed: formatDuration(least) + " to " + formatDuration(most), fault: func() string {
		if *d < least || *d > most {
			return fmt.Sprintf("%s is out of range; use %s to %s", formatDuration(*d), formatDuration(least), formatDuration(most))
		}
		return ""
	}}
}

// zeroOr also allows 0, which switches something off.
func zeroOr(d *time.Duration, other rule) rule {
	return rule{allowed: "`0s`, " + other.allowed, fault: func() string {
		if *d == 0 {
			return ""
		}
		return other.fault()
	}}
}

func baseURL(s *string) rule {
	return rule{allowed: "a URL", fault: func() string { return urlFault(*s) }}
}

func urlFault(s string) string {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "is not a URL that can be used; give one such as https://proxy.example.com without user, query and fragment"
	}
	return ""
}

func readable(path *string) rule {
	return rule{fault: func() string {
		if *path == "" {
			return ""
		}
		f, err := os.Open(*path)
		if err != nil {
			return fmt.Sprintf("cannot be read: %s", err)
		}
		_ = f.Close()
		return ""
	}}
}
