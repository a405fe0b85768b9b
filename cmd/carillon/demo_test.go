package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDemoOnce(t *testing.T) {
	t.Parallel()
	code, out, errs := command(t, nil, "demo", "--once")
	require.Zero(t, code, errs)
	require.Empty(t, errs)
	for _, want := range []string{
		`(?m)^fcm +bob +Android +sent +3 .*failed twice with 503`,
		`(?m)^fcm +bob +old phone +dropped \(gone\) +1 `,
		`(?m)^fcm +bob +tablet +dead \(rejected\) +1 `,
		`(?m)^apns +bob +dev build +sent +2 `,
		`(?m)^webpush +alice +browser +sent +1 `,
		`(?m)^webhook +- +orders +sent +1 `,
		`9 of 9`,
		`GET /v1/devices/dev_\w+ +status retired, reason fcm.unregistered`,
		`POST /v1/deliveries/dlv_\w+/replay`,
		`(?m)^fcm +bob +tablet +sent +2 .*replayed$`,
		`1 of 1`,
		`a second VAPID pair`,
		`(?m)^  restored +asked_for +key_\w+$`,
		`(?m)^  retired +fcm\.unregistered +engine$`,
	} {
		require.Regexp(t, want, out)
	}
	require.NotContains(t, out, "Now it is yours")
	require.NotContains(t, out, "\x1b", "there is no terminal")
}

// TestDemoStays runs the demo as people do, at an address that is taken.
func TestDemoStays(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, end := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"demo", "--listen", taken.Addr().String()}, streams{in: strings.NewReader(""), out: end, err: io.Discard})
		_ = end.Close()
	}()
	urls := map[string]string{}
	for lines := bufio.NewScanner(out); urls["Metrics"] == "" && lines.Scan(); {
		for _, name := range []string{"A browser that gets notifications", "The API", "What the providers saw", "Metrics"} {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), name+"  "); ok {
				urls[name] = strings.TrimSpace(rest)
			}
		}
	}
	require.Len(t, urls, 4)
	for name, url := range urls {
		require.NotContains(t, url, taken.Addr().String())
		status, _ := get(t, url)
		require.Equal(t, 200, status, name)
	}
	cancel()
	select {
	case code := <-ended:
		require.Zero(t, code)
	case <-time.After(waitLimit):
		t.Fatal("the demo does not end")
	}
}
