package simulator_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillonhq/carillon/simulator"
)

func TestParseFault(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]simulator.Fault{
		"sim-ok-anna":             {},
		"sim-503":                 {Status: 503},
		"503x2":                   {Status: 503, Times: 2},
		"sim-503x2-anna":          {Status: 503, Times: 2},
		"sim-429-30s":             {Status: 429, RetryAfter: 30 * time.Second},
		"sim-429-1m30s-x3":        {Status: 429, RetryAfter: 90 * time.Second, Times: 3},
		"sim-slow-250ms":          {Latency: 250 * time.Millisecond},
		"sim-slow-1s-503":         {Latency: time.Second, Status: 503},
		"sim-reset":               {Reset: true},
		"sim-resetx1":             {Reset: true, Times: 1},
		"sim-cut-500":             {CutBody: true, Status: 500},
		"sim-unregistered-404":    {Status: 404, Reason: "UNREGISTERED"},
		"sim-unregisteredx1":      {Status: 404, Reason: "UNREGISTERED", Times: 1},
		"sim-invalid":             {Status: 400, Reason: "INVALID_TOKEN"},
		"sim-503-anna-429":        {Status: 503},
		"sim-503-slow-anna":       {Status: 503},
		"sim-503-n410":            {Status: 503},
		"sim-503x2-x3":            {Status: 503, Times: 2},
		"sim-599-1s-2s":           {Status: 599, RetryAfter: time.Second},
		"sim-projectquota-1m0s-n": {Status: 429, Reason: "RATE_LIMIT_EXCEEDED", RetryAfter: time.Minute},
	} {
		f, ok := simulator.ParseFault(simulator.FCM, text)
		require.True(t, ok, text)
		require.Equal(t, want, f, text)
	}
	for _, text := range []string{"sim-anna", "sim-", "", "sim-199", "sim-600", "sim-5031", "sim-slow", "sim-slow-", "x0"} {
		f, ok := simulator.ParseFault(simulator.FCM, text)
		require.False(t, ok, text)
		require.Zero(t, f, text)
	}
	f, ok := simulator.ParseFault(simulator.APNs, "unregistered")
	require.True(t, ok)
	require.Equal(t, simulator.Fault{Status: 410, Reason: "Unregistered"}, f)
}

// TestTokenRoundTrip: whatever Token writes, a request reads.
func TestTokenRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := simulator.Fault{
			Status:     rapid.SampledFrom([]int{0, 200, 400, 404, 410, 429, 503, 599}).Draw(t, "status"),
			RetryAfter: time.Duration(rapid.IntRange(0, 99_999).Draw(t, "retry")) * time.Second,
			Latency:    time.Duration(rapid.IntRange(0, 999_999).Draw(t, "latency")) * time.Millisecond,
			Reset:      rapid.Bool().Draw(t, "reset"),
			CutBody:    rapid.Bool().Draw(t, "cut"),
			Times:      rapid.IntRange(0, 999).Draw(t, "times"),
		}
		seq := rapid.IntRange(0, 1<<40).Draw(t, "seq")
		for _, ch := range []simulator.Channel{simulator.FCM, simulator.WebPush, simulator.Webhook} {
			token := simulator.Token(ch, f, seq)
			back, ok := simulator.ParseFault(ch, token)
			if !ok || back != f {
				t.Fatalf("%s: %s became %+v, not %+v", ch, token, back, f)
			}
		}
		if token := simulator.Token(simulator.APNs, f, seq); len(token) != 64 || strings.Trim(token, "0123456789abcdef") != "" {
			t.Fatalf("%s is not a device token", token)
		}
	})
}

func TestTokenWords(t *testing.T) {
	t.Parallel()
	gone := simulator.Fault{Status: 404, Reason: "UNREGISTERED", Times: 1}
	require.Equal(t, "sim-unregisteredx1-n7", simulator.Token(simulator.FCM, gone, 7))
	require.Equal(t, "sim-ok-n1", simulator.Token(simulator.FCM, simulator.Fault{}, 1))
	require.Equal(t, "sim-403-n1", simulator.Token(simulator.FCM, simulator.Fault{Status: 403, Reason: "Unheard"}, 1))
	require.NotEqual(t, simulator.Token(simulator.APNs, gone, 1), simulator.Token(simulator.APNs, gone, 2))
}

// TestPackageCommentNamesEveryWord keeps the one place where faults are
// documented complete.
func TestPackageCommentNamesEveryWord(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	words := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		fields := strings.Fields(strings.TrimPrefix(line, "//"))
		if len(fields) < 6 || !strings.HasPrefix(line, "//\t") {
			continue
		}
		f, ok := simulator.ParseFault(simulator.FCM, fields[0])
		if !ok || f.Status == 0 || f.Reason == "" {
			continue
		}
		words++
		require.Equal(t, fmt.Sprintf("%d %s", f.Status, f.Reason), fields[1]+" "+fields[2], line)
		a, _ := simulator.ParseFault(simulator.APNs, fields[0])
		require.Equal(t, fmt.Sprintf("%d %s", a.Status, a.Reason), fields[3]+" "+fields[4], line)
		p, _ := simulator.ParseFault(simulator.WebPush, fields[0])
		require.Contains(t, strings.Join(fields[5:], " "), fmt.Sprint(p.Status), line)
	}
	require.Equal(t, 10, words, "every word but the synonym gone has a full line")
}
