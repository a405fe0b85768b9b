package egress

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzCheckURL: what is taken is https to a name or a public address, and is taken
// again as it is given back.
func FuzzCheckURL(f *testing.F) {
	for _, s := range []string{
		"https://example.com/hook?x=1", "https://[2606:4700::1111]:443/", "https://127.1/", "https://0x7f.1/", "https://[::ffff:10.0.0.1]/", "https://u:p@example.com/",
		"https://example.com:0443/", "https://xn--bcher-kva.example/", "https://intranet/", "https:\\\\example.com", "https://example.com%2f@10.0.0.1/",
		"https://[fe80::1%25eth0]/", "HTTPS://EXAMPLE.com./", "//example.com", "https://example.com:443#", "https://1.1.1.1.:443/", "https://\u2460.example/",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := Rules{}.CheckURL(raw)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		require.Equal(t, "https", u.Scheme)
		require.Nil(t, u.User)
		require.LessOrEqual(t, len(raw), MaxURLBytes)
		host := u.Hostname()
		if a, err := netip.ParseAddr(host); err == nil {
			require.NoError(t, Rules{}.checkAddr(a), raw)
		} else {
			require.Contains(t, strings.TrimSuffix(host, "."), ".", raw)
			require.NotContains(t, host, "%", raw)
		}
		again, err := Rules{}.CheckURL(u.String())
		if len(u.String()) <= MaxURLBytes { // escapes may have made it longer
			require.NoError(t, err, raw)
			require.Equal(t, u.Host, again.Host, raw)
		}
	})
}
