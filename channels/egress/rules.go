package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"code.dny.dev/ssrf"
)

// maxLabelBytes is the longest part of a host name between dots (RFC 1035 section 2.3.4).
const maxLabelBytes = 63

// MaxURLBytes is the longest URL that CheckURL takes.
const MaxURLBytes = 2048

// ErrRefused says that a request was not sent because its address is not
// allowed. errors.Is finds it through *url.Error and *net.OpError.
var ErrRefused = errors.New("egress: address not allowed")

// errInside is the ErrRefused of an address that is not public.
var errInside = fmt.Errorf("%w: not public", ErrRefused)

// Rules say which hosts that tenants and devices choose may be reached. The
// zero value allows https on port 443 to public addresses.
type Rules struct {
	Allow     []netip.Prefix // private ranges that the operator opens, such as 10.0.0.0/8
	AllowHTTP bool           // plain http:// too
	Ports     []uint16       // empty: 443, and 80 with AllowHTTP
	AnyPort   bool           // Ports does not count
}

// CheckURL tells at registration whether a URL can ever be reached under the
// rules. Names are not looked up here: where they lead is checked whenever they
// are dialled. An error says what to change.
func (r Rules) CheckURL(raw string) (*url.URL, error) {
	if len(raw) > MaxURLBytes {
		return nil, fmt.Errorf("the URL is longer than %d bytes; shorten it", MaxURLBytes)
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("not a URL; give one such as https://example.com/hook")
	case u.Scheme == "http" && !r.AllowHTTP:
		return nil, errors.New("plain http is not allowed; use https")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("give an absolute URL that begins with https://")
	case u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("the URL has no host; give one such as https://example.com/hook")
	case u.User != nil:
		return nil, errors.New("remove the user name and password from the URL")
	case strings.Contains(raw, "#"):
		return nil, errors.New("remove the fragment (# and what follows) from the URL")
	}
	if err := r.checkPort(u); err != nil {
		return nil, err
	}
	if err := r.checkHost(u.Hostname()); err != nil {
		return nil, err
	}
	return u, nil
}

func (r Rules) checkPort(u *url.URL) error {
	text := u.Port()
	if text == "" && u.Scheme == "https" {
		text = "443"
	} else if text == "" {
		text = "80"
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return errors.New("the port must be a number from 1 to 65535")
	}
	if text[0] == '0' {
		return fmt.Errorf("the port is written with a leading zero; write %d", port)
	}
	if !r.AnyPort && !slices.Contains(r.ports(), uint16(port)) {
		return fmt.Errorf("port %d is not allowed; use one of %v", port, r.ports())
	}
	return nil
}

func (r Rules) checkHost(host string) error {
	if a, err := netip.ParseAddr(host); err == nil {
		if r.checkAddr(a) != nil {
			return errors.New("the address is private or reserved; give a public one, or ask the operator to allow its range")
		}
		return nil
	}
	for _, c := range []byte(host) {
		if !(c == '-' || c == '.' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return errors.New("the host name has characters other than letters, digits, '-' and '.'; write it in its ASCII (xn--) form")
		}
	}
	labels := strings.Split(strings.ToLower(strings.TrimSuffix(host, ".")), ".")
	last := labels[len(labels)-1]
	switch {
	case slices.Contains(labels, "") || len(host) > 253:
		return errors.New("the host name is not valid; give one such as example.com")
	case slices.ContainsFunc(labels, func(l string) bool { return len(l) > maxLabelBytes }):
		return fmt.Errorf("the host name has a part of more than %d characters, which no name has; correct it", maxLabelBytes)
	case last[0] >= '0' && last[0] <= '9':
		// 127.1 and 0x7f.1 are addresses to some resolvers; no top-level
		// domain begins with a digit.
		return errors.New("the host is neither a name nor a complete IP address; write an IPv4 address as four numbers")
	case len(labels) == 1 && last != "localhost" && len(r.Allow) == 0:
		return errors.New("the host name has no dot, so that it is a name within some network; give a public one, such as example.com")
	case last == "localhost" && r.checkAddr(netip.AddrFrom4([4]byte{127, 0, 0, 1})) != nil:
		return errors.New("localhost is not allowed; give a public host, or ask the operator to allow 127.0.0.0/8")
	}
	return nil
}

func (r Rules) ports() []uint16 {
	switch {
	case len(r.Ports) > 0:
		return r.Ports
	case r.AllowHTTP:
		return []uint16{443, 80}
	}
	return []uint16{443}
}

// checkAddr refuses what IANA's special-purpose registries list, all IPv6
// outside global unicast, and Azure's wire server, which looks public.
func (r Rules) checkAddr(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	if err := r.guardian().SafeAddr(a); err != nil {
		return fmt.Errorf("%w: %w", errInside, err)
	}
	if a.Is6() && ssrf.IPv6NAT64Prefix.Contains(a) {
		// The operator opened NAT64, which leads to the IPv4 address in the
		// last four octets (RFC 6052 section 2.2).
		b := a.As16()
		return r.checkAddr(netip.AddrFrom4([4]byte(b[12:])))
	}
	return nil
}

// checkDial is checkAddr and the port of what a dialler is about to connect to.
func (r Rules) checkDial(network, address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("%w: not a TCP address", ErrRefused)
	}
	if !r.AnyPort && !slices.Contains(r.ports(), ap.Port()) {
		return fmt.Errorf("%w: port %d", ErrRefused, ap.Port())
	}
	return r.checkAddr(ap.Addr())
}

func (r Rules) guardian() *ssrf.Guardian {
	var v4, v6 []netip.Prefix
	for _, p := range r.Allow {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	return ssrf.New(
		ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...),
		ssrf.WithDeniedV4Prefixes(netip.PrefixFrom(netip.AddrFrom4([4]byte{168, 63, 129, 16}), 32)),
		ssrf.WithAnyPort())
}
