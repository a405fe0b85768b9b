package egress

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheckAddr(t *testing.T) {
	t.Parallel()
	refused := []string{
		"0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
		"192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "168.63.129.16",
		"::", "::1", "::ffff:127.0.0.1", "::ffff:168.63.129.16", "fd00:ec2::254", "fe80::1%eth0", "fec0::1", "ff02::1",
		"64:ff9b::7f00:1", "64:ff9b::808:808", "2002:7f00:1::", "2001::1", "2001:db8::1", "::7f00:1",
	}
	for _, a := range refused {
		require.ErrorIs(t, Rules{}.checkAddr(netip.MustParseAddr(a)), ErrRefused, a)
	}
	for _, a := range []string{"8.8.8.8", "168.63.129.17", "2606:4700::1111", "::ffff:8.8.8.8"} {
		require.NoError(t, Rules{}.checkAddr(netip.MustParseAddr(a)), a)
	}

	open := Rules{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"),
		netip.MustParsePrefix("64:ff9b::/96")}}
	for _, a := range []string{"10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "64:ff9b::808:808"} {
		require.NoError(t, open.checkAddr(netip.MustParseAddr(a)), a)
	}
	for _, a := range []string{"192.168.1.1", "127.0.0.1", "fe80::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"} {
		require.ErrorIs(t, open.checkAddr(netip.MustParseAddr(a)), ErrRefused, a)
	}
}

func TestCheckDial(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		rules            Rules
		network, address string
		ok               bool
	}{
		{Rules{}, "tcp4", "8.8.8.8:443", true},
		{Rules{}, "tcp4", "8.8.8.8:80", false},
		{Rules{AllowHTTP: true}, "tcp4", "8.8.8.8:80", true},
		{Rules{Ports: []uint16{8443}}, "tcp4", "8.8.8.8:443", false},
		{Rules{Ports: []uint16{8443}}, "tcp6", "[2606:4700::1111]:8443", true},
		{Rules{AnyPort: true}, "tcp4", "8.8.8.8:25", true},
		{Rules{}, "udp4", "8.8.8.8:443", false},
		{Rules{}, "tcp4", "8.8.8.8", false},
	} {
		err := tc.rules.checkDial(tc.network, tc.address)
		require.Equal(t, tc.ok, err == nil, "%+v %s %s", tc.rules, tc.network, tc.address)
	}
}

func TestCheckURL(t *testing.T) {
	t.Parallel()
	loopback := Rules{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AllowHTTP: true, AnyPort: true}
	for _, tc := range []struct {
		rules Rules
		url   string
		fix   string // part of the error; "" where the URL is fine
	}{
		{Rules{}, "https://example.com/hook?x=1", ""},
		{Rules{}, "https://example.com.:443/", ""},
		{Rules{}, "https://xn--bcher-kva.example/", ""},
		{Rules{}, "https://[2606:4700::1111]/", ""},
		{loopback, "http://127.0.0.1:8080/x", ""},
		{loopback, "http://localhost:8080/x", ""},
		{Rules{}, "http://example.com/", "use https"},
		{Rules{}, "ftp://example.com/", "https://"},
		{Rules{}, "/hook", "https://"},
		{Rules{}, "https:example.com", "no host"},
		{Rules{}, "https:///x", "no host"},
		{Rules{}, "https://u:p@example.com/", "user name"},
		{Rules{}, "https://example.com/#frag", "fragment"},
		{Rules{}, "https://example.com/#", "fragment"},
		{Rules{}, "https://example.com:8443/", "port 8443"},
		{Rules{}, "https://example.com:0/", "1 to 65535"},
		{Rules{AnyPort: true}, "https://example.com:99999/", "1 to 65535"},
		{Rules{}, "https://127.0.0.1/", "private"},
		{Rules{}, "https://[::ffff:10.0.0.1]/", "private"},
		{Rules{}, "https://168.63.129.16/", "private"},
		{Rules{}, "https://localhost/", "localhost"},
		{Rules{}, "https://a.LOCALHOST./", "localhost"},
		{Rules{}, "https://intranet/", "no dot"},
		{Rules{AllowHTTP: true, AnyPort: true}, "http://receiver.:8080/", "no dot"},
		{loopback, "http://receiver:8080/", ""},
		{Rules{}, "https://2130706433/", "four numbers"},
		{Rules{}, "https://0x7f.1/", "four numbers"},
		{Rules{}, "https://127.1/", "four numbers"},
		{Rules{}, "https://bücher.example/", "xn--"},
		{Rules{}, "https://a..example/", "not valid"},
		{Rules{}, "https://exa mple/", "not a URL"},
		{Rules{}, "https://example.com:0443/", "write 443"},
		{Rules{}, "https://" + strings.Repeat("a", 64) + ".example/", "more than 63"},
		{Rules{}, "https://" + strings.Repeat("a", 63) + ".example/", ""},
		{Rules{}, "https://example.com/" + strings.Repeat("x", MaxURLBytes), "longer"},
	} {
		u, err := tc.rules.CheckURL(tc.url)
		if tc.fix == "" {
			require.NoError(t, err, tc.url)
			require.Equal(t, tc.url, u.String())
			continue
		}
		require.ErrorContains(t, err, tc.fix, tc.url)
		require.Nil(t, u)
	}
}
