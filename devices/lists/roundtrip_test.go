package lists_test

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillonhq/carillon/devices/lists"
)

// letters are any text without zeros, which no text file has.
func letters() *rapid.Generator[string] {
	return rapid.Map(rapid.String(), func(s string) string { return strings.ReplaceAll(s, "\x00", "") })
}

func drawnDevice(t *rapid.T) lists.Device {
	text := func(name string) string {
		return rapid.OneOf(rapid.Just(""), letters(), rapid.SampledFrom([]string{`"`, ",", "\r\n", "a\rb", " x ", `\.`, ";", "\t", "=1"})).Draw(t, name)
	}
	at := func(name string) time.Time {
		if rapid.Bool().Draw(t, name) {
			return time.Time{}
		}
		return time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, name)).UTC()
	}
	d := lists.Device{ID: text("id"), User: text("user"), App: text("app"), Channel: text("channel"), Environment: text("environment"), Purpose: text("purpose"),
		ActivityID: text("activity"), ExpiresAt: at("expires"), InstallationID: text("installation"), OS: text("os"), AppVersion: text("version"),
		Locale: text("locale"), TimeZone: text("zone"), RegisteredAt: at("registered"), LastSeenAt: at("seen")}
	switch rapid.IntRange(0, 2).Draw(t, "address") {
	case 0:
		d.Token = text("token")
	case 1:
		d.FID = text("fid")
	default:
		d.Subscription = &lists.Subscription{Endpoint: "https://" + text("endpoint"), Keys: lists.Keys{P256dh: text("p256dh"), Auth: text("auth")}, VAPIDKey: text("key")}
		if rapid.Bool().Draw(t, "expiring") {
			ms := rapid.Float64Range(-1e15, 1e15).Draw(t, "expiration")
			d.Subscription.ExpirationTime = &ms
		}
	}
	if tags := rapid.MapOfN(letters(), letters(), 0, 4).Draw(t, "tags"); len(tags) > 0 {
		d.Tags = tags
	}
	return d
}

// TestWhatIsWrittenIsReadBack: whatever devices say, and however the reader is fed.
func TestWhatIsWrittenIsReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		format := rapid.SampledFrom([]lists.Format{lists.NDJSON, lists.CSV}).Draw(t, "format")
		written := rapid.SliceOfN(rapid.Custom(drawnDevice), 1, 5).Draw(t, "devices")
		var b bytes.Buffer
		w, err := lists.NewWriter(&b, format)
		require.NoError(t, err)
		for _, d := range written {
			require.NoError(t, w.Write(d))
		}
		require.NoError(t, w.Flush())
		var src io.Reader = &b
		if rapid.Bool().Draw(t, "byte by byte") {
			src = iotest.OneByteReader(src)
		}
		r, err := lists.NewReader(src, lists.Options{Format: format})
		require.NoError(t, err)
		for _, d := range written {
			e, err := r.Read()
			require.NoError(t, err)
			require.Equal(t, d, e.Device)
		}
		_, err = r.Read()
		require.ErrorIs(t, err, io.EOF)
		require.Empty(t, r.Ignored())
	})
}

func TestAListIsWrittenInTwoFormats(t *testing.T) {
	t.Parallel()
	_, err := lists.NewWriter(io.Discard, lists.SNS)
	require.ErrorContains(t, err, "ndjson or csv")
	w, err := lists.NewWriter(iotest.TruncateWriter(io.Discard, 0), lists.CSV)
	require.NoError(t, err)
	require.NoError(t, w.Flush())
}

// endless is a file that never ends, which looks at how much memory is used while it is
// read.
type endless struct {
	row        string
	read, most int
}

func (e *endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], e.row)
	}
	const every = 1 << 20
	if e.read/every != (e.read+n)/every {
		e.most = max(e.most, heap())
	}
	e.read += n
	return n, nil
}

// heap is what is in use, without what only waits to be collected.
func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestNoListIsHeldInMemory: neither a long one, nor one whose row never ends.
func TestNoListIsHeldInMemory(t *testing.T) { //nolint:paralleltest // others would use memory meanwhile
	const size, most = 4 << 20, 1 << 20
	for name, c := range map[string]struct {
		format lists.Format
		head   string
		row    string
	}{
		"rows":             {lists.CSV, "user,token\n", "u,t\n"},
		"an open quote":    {lists.CSV, "user,token\n\"", "x"},
		"lines of quotes":  {lists.CSV, "user,token\n", "\"\n"},
		"one line":         {lists.NDJSON, "{", " "},
		"lines":            {lists.NDJSON, "", `{"user":"u","token":"t"}` + "\n"},
		"one member":       {lists.NDJSON, "[\"", "x"},
		"members":          {lists.NDJSON, "[", `{"user":"u","token":"t"},`},
		"nothing but [":    {lists.NDJSON, "[", "["},
		"nothing of worth": {lists.SNS, `{"a`, "a"},
	} {
		file := &endless{row: c.row}
		before := heap()
		r, err := lists.NewReader(io.LimitReader(io.MultiReader(strings.NewReader(c.head), file), size), lists.Options{Format: c.format})
		require.NoError(t, err, name)
		var p *lists.RowError
		for err == nil || errors.As(err, &p) {
			_, err = r.Read()
		}
		require.Greater(t, file.read, size-buffered, name)
		require.Less(t, file.most-before, most, name)
	}
}

// buffered is more than what is read ahead.
const buffered = 8 * lists.MaxRow
