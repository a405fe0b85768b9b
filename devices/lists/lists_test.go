package lists_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/devices/lists"
)

// read reads a whole list: its devices, and what is wrong with the others.
func read(t *testing.T, list string, o lists.Options) (entries []lists.Entry, problems []string) {
	t.Helper()
	r, err := lists.NewReader(strings.NewReader(list), o)
	require.NoError(t, err)
	for {
		e, err := r.Read()
		var p *lists.RowError
		switch {
		case errors.Is(err, io.EOF):
			_, again := r.Read()
			require.ErrorIs(t, again, io.EOF)
			return entries, problems
		case errors.As(err, &p):
			problems = append(problems, p.Error())
		case err != nil:
			return entries, append(problems, "end: "+err.Error())
		default:
			entries = append(entries, e)
		}
	}
}

func TestLinesOfJSON(t *testing.T) {
	t.Parallel()
	entries, problems := read(t, "\ufeff"+strings.Join([]string{
		`{"user":"u1","channel":"fcm","token":"t1","tags":{"plan":"pro"},"last_seen_at":"2026-01-31T12:00:00Z"}`,
		``,
		`{"user":"u2","endpoint":"https://push.example.com/x","expirationTime":null,"keys":{"p256dh":"p","auth":"a"},"vapid_key":"v"}`,
		`{"user":"u3","subscription":{"endpoint":"https://push.example.com/y","keys":{"p256dh":"p","auth":"a"}}}`,
		`{"user":"u4","tokn":"secret"}`,
		`{"user":"u5","tags":{"a":7}}`,
		`{"user":"u6","token":"secret`,
		`{"user":"u7","last_seen_at":"yesterday"}`,
		`{"user":"u8","user":"u9"}`,
		`[]`,
		`{"token":"` + strings.Repeat("x", lists.MaxRow) + `"}`,
		`{"user":"u10","keys":{}}`,
		"{\"user\":\"\xff\"}",
		`{"user":"last","token":"t9"}`,
	}, "\r\n"), lists.Options{Format: lists.NDJSON, Default: lists.Device{App: "shop", Channel: "apns"}})
	require.Equal(t, []string{
		"line 5: tokn is not known here; leave it out or check its spelling",
		"line 6: tags.a is of another type than it should be",
		"line 7 is not valid JSON",
		"line 8: last_seen_at is not a time; use the form 2026-01-31T12:00:00Z",
		"line 9 has a member twice",
		"line 10 is not a JSON object",
		"line 11 has a row of more than 65536 bytes",
		"line 12: endpoint is missing beside keys, expirationTime or vapid_key",
		"line 13 is not valid UTF-8; convert it: iconv -f WINDOWS-1252 -t UTF-8, if that is what it is",
	}, problems)
	require.Equal(t, []lists.Entry{
		{Line: 1, Device: lists.Device{User: "u1", App: "shop", Channel: "fcm", Token: "t1", Tags: map[string]string{"plan": "pro"}, LastSeenAt: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}},
		{Line: 3, Device: lists.Device{User: "u2", App: "shop", Subscription: &lists.Subscription{Endpoint: "https://push.example.com/x", Keys: lists.Keys{P256dh: "p", Auth: "a"}, VAPIDKey: "v"}}},
		{Line: 4, Device: lists.Device{User: "u3", App: "shop", Subscription: &lists.Subscription{Endpoint: "https://push.example.com/y", Keys: lists.Keys{P256dh: "p", Auth: "a"}}}},
		{Line: 14, Device: lists.Device{User: "last", App: "shop", Channel: "apns", Token: "t9"}},
	}, entries)
}

// TestWhatIsNoList is refused before anything is read, with what to do about it.
func TestWhatIsNoList(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]string{
		"":                              "the file is empty",
		"\ufeff \r\n":                   "the file is empty",
		"PK\x03\x04rest":                "save the sheet as CSV in UTF-8",
		"\xff\xfet\x00o\x00":            "UTF-16; convert it: iconv",
		"t\x00o\x00k\x00e\x00n\x00":     "UTF-16",
		"\xff\xfe\x00\x00t\x00\x00\x00": "UTF-32",
		"token\nab\x00c":                "is not text",
		"token,name\nt,M\xfcller\n":     "not UTF-8; convert it: iconv -f WINDOWS-1252",
		"\x28\xb5\x2f\xfd":              "zstd -d",
		"\x1f\x8bx":                     "is not whole",
		"a,b\n1,2\n":                    `no column token, fid, subscription.endpoint; its columns are "a", "b": say which is which`,
		"token,token\n1,2\n":            `"token" and "token" are both token`,
		"token,\"a\n":                   "column names cannot be read: line 1 has a quote that is never closed",
		strings.Repeat("x", 2*lists.MaxRow) + ",": "column names cannot be read: line 1 has a row of more than 65536 bytes",
	} {
		_, err := lists.NewReader(strings.NewReader(list), lists.Options{Format: lists.CSV})
		require.ErrorContains(t, err, want, "%.20q", list)
	}
	for _, o := range []lists.Options{
		{Format: "xml"}, {Format: lists.OneSignal}, {Format: lists.Firebase}, {Format: lists.SNS}, {Format: lists.NDJSON},
		{Format: lists.CSV, Columns: map[string]string{"tok": "token"}}, {Format: lists.CSV, Columns: map[string]string{"id": "tokn"}}, {Format: lists.Tokens},
	} {
		_, err := lists.NewReader(strings.NewReader("id,token\n1,2\n"), o)
		require.Error(t, err, "%v", o)
	}
	_, err := lists.NewReader(strings.NewReader("[]"), lists.Options{Format: lists.CSV})
	require.ErrorContains(t, err, "is JSON")
	_, err = lists.NewReader(iotest.ErrReader(errors.New("gone")), lists.Options{Format: lists.CSV})
	require.ErrorContains(t, err, "gone")
}

func TestColumns(t *testing.T) {
	t.Parallel()
	const list = "id;push token;plan;seen;ignored;extra\r\n" +
		"u1;\"t;\"\"1\"\"\r\nx\";pro;2026-01-31 12:00:00+00;\"\";1\r\n" +
		"\r\n" +
		"u2;t2;;1769860800;x;2\n" +
		"u3;t\"3;;;;\n" +
		"u4;t4\n" +
		"u5;\"t5\"x;;;;\n" +
		"u6;t6;;never;;\n" +
		"u7;\"never closed;;;;\n" +
		"u8;t8;;1769860800000;;"
	o := lists.Options{Format: lists.CSV, Columns: map[string]string{"id": "user", "push token": "token", "plan": "tags.plan", "seen": "last_seen_at", "ignored": ""},
		Default: lists.Device{Channel: "fcm"}}
	entries, problems := read(t, list, o)
	seen := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	require.Equal(t, []lists.Entry{
		{Line: 2, Device: lists.Device{User: "u1", Channel: "fcm", Token: "t;\"1\"\r\nx", Tags: map[string]string{"plan": "pro"}, LastSeenAt: seen}},
		{Line: 5, Device: lists.Device{User: "u2", Channel: "fcm", Token: "t2", LastSeenAt: seen}},
		{Line: 11, Device: lists.Device{User: "u8", Channel: "fcm", Token: "t8", LastSeenAt: seen}},
	}, entries)
	require.Equal(t, []string{
		`line 6 has a quote within a field that does not begin with one; write "a ""b"" c" for a "b" c`,
		"line 7 has 2 fields, and the line of column names has 6",
		"line 8 has something between a closing quote and the end of its field",
		"line 9: last_seen_at is not a time; use the form 2026-01-31T12:00:00Z",
		"line 10 has a quote that is never closed",
	}, problems)
	r, err := lists.NewReader(strings.NewReader(list), o)
	require.NoError(t, err)
	require.Equal(t, []string{"extra"}, r.Ignored())
}

// TestAQuoteThatIsNeverClosed costs one row, wherever it is in a large file.
func TestAQuoteThatIsNeverClosed(t *testing.T) {
	t.Parallel()
	var list strings.Builder
	list.WriteString("user,token\n\"u0,t0\n")
	const n = 20_000
	for i := range n {
		fmt.Fprintf(&list, "u%d,t%d\n", i, i)
	}
	entries, problems := read(t, list.String(), lists.Options{Format: lists.CSV})
	require.Equal(t, []string{"line 2 has a row of more than 65536 bytes: is a quote never closed?"}, problems)
	require.Len(t, entries, n)
	require.Equal(t, n+2, entries[n-1].Line)

	long := "user,token\nu1,t1\nu2," + strings.Repeat("x", 10*lists.MaxRow) + "\nu3,t3\n"
	entries, problems = read(t, long, lists.Options{Format: lists.CSV})
	require.Equal(t, []string{"line 3 has a row of more than 65536 bytes"}, problems)
	require.Equal(t, 4, entries[1].Line)
}

func TestGzip(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte("token\nt1\nt2\n"))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	entries, problems := read(t, b.String(), lists.Options{Format: lists.CSV})
	require.Len(t, entries, 2)
	require.Empty(t, problems)
	_, err = lists.NewReader(strings.NewReader(b.String()[:b.Len()-9]), lists.Options{Format: lists.CSV})
	require.ErrorContains(t, err, "unexpected EOF", "what is cut off is not taken for whole")
}

func TestPresets(t *testing.T) {
	t.Parallel()
	browser := base64.StdEncoding.EncodeToString([]byte(`{"endpoint":"https://push.example.com/x","keys":{"p256dh":"p","auth":"a"}}`))
	for name, c := range map[string]struct {
		o        lists.Options
		list     string
		want     []lists.Device
		problems []string
	}{
		"gorush, a token a line": {lists.Options{Format: lists.Tokens, Default: lists.Device{Channel: "fcm"}, Anonymous: "anon-"}, "t1\n\nt 2\nt1",
			[]lists.Device{{User: "anon-628b49d96dcde97a430dd4f597705899", Channel: "fcm", Token: "t1"}, {User: "anon-628b49d96dcde97a430dd4f597705899", Channel: "fcm", Token: "t1"}},
			[]string{"line 3: token has a space, comma or quote; is this a list in CSV or NDJSON?"}},
		"gorush, JSON": {lists.Options{Format: lists.Tokens, Default: lists.Device{Channel: "fcm"}}, "[\"t1\",\n {\"token\":\"t2\",\"platform\":1,\"user\":\"u\"}, {\"token\":\"t3\",\"platform\":3}, 7]",
			[]lists.Device{{Channel: "fcm", Token: "t1"}, {User: "u", Channel: "apns", OS: "ios", Token: "t2"}},
			[]string{"line 2: platform is neither 1 (iOS) nor 2 (Android), which are those that can be reached", "line 2 is not a JSON object"}},
		"OneSignal": {lists.Options{Format: lists.OneSignal}, `id,identifier,device_type,external_user_id,language,timezone_id,game_version,tags,last_active,created_at,invalid_identifier,notification_types,web_auth,web_p256
1,aa11,0,u1,de,Europe/Berlin,1.2,"{""plan"":""pro"",""n"":7}",2026-01-31 12:00:00 UTC,2026-01-01,f,1,,
2,t2,1,u2,en,,,,,,f,,,
3,https://push.example.com/x,5,u3,en,,,,,,f,,a,p
4,a@example.com,11,u4,,,,,,,f,,,
5,t5,1,u5,,,,,,,t,,,
6,t6,1,u6,,,,,,,f,-2,,
7,,1,u7,,,,,,,f,,,
8,old-gcm-id,5,u8,,,,,,,f,,,
`,
			[]lists.Device{
				{User: "u1", Channel: "apns", Token: "aa11", OS: "ios", AppVersion: "1.2", Locale: "de", TimeZone: "Europe/Berlin", Tags: map[string]string{"plan": "pro", "n": "7"},
					LastSeenAt: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC), RegisteredAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)},
				{User: "u2", Channel: "fcm", Token: "t2", OS: "android", Locale: "en"},
				{User: "u3", OS: "web", Locale: "en", Subscription: &lists.Subscription{Endpoint: "https://push.example.com/x", Keys: lists.Keys{P256dh: "p", Auth: "a"}}},
			},
			[]string{"line 5: device_type is none that can be reached: those are 0 (iOS), 1 (Android), 5 (Chrome), 8 (Firefox) and 17 (Safari)",
				"line 6: invalid_identifier says that the address is dead", "line 7: notification_types says that the user has unsubscribed",
				"line 8: identifier is empty: it has never had an address", "line 9: identifier is not the endpoint of a push subscription"}},
		"AeroGear": {lists.Options{Format: lists.AeroGear, Default: lists.Device{Channel: "fcm"}}, `[
 {"deviceToken":"t1","operatingSystem":"iOS","osVersion":"17","alias":"u1","categories":["news",{"id":7,"name":"sport"}],"enabled":true},
 {"deviceToken":"t2","alias":"u2"}, {"deviceToken":"` + browser + `","alias":"u3"},
 {"deviceToken":"t4","enabled":false}, {"alias":"u5"}]`,
			[]lists.Device{{User: "u1", Channel: "apns", Token: "t1", OS: "ios", Tags: map[string]string{"news": "true", "sport": "true"}}, {User: "u2", Channel: "fcm", Token: "t2"},
				{User: "u3", Subscription: &lists.Subscription{Endpoint: "https://push.example.com/x", Keys: lists.Keys{P256dh: "p", Auth: "a"}}}},
			[]string{"line 4: enabled says that the installation is switched off", "line 4: deviceToken is missing"}},
		"SNS, in pages": {lists.Options{Format: lists.SNS}, `{"Endpoints": [
 {"EndpointArn":"arn:aws:sns:us-east-1:123456789012:endpoint/GCM/shop/1","Attributes":{"Enabled":"true","Token":"t1","CustomUserData":"u1"}},
 {"EndpointArn":"arn:aws:sns:us-east-1:123456789012:endpoint/APNS_VOIP_SANDBOX/shop/2","Attributes":{"Enabled":"true","Token":"t2"}},
 {"EndpointArn":"arn:aws:sns:us-east-1:123456789012:endpoint/ADM/shop/3","Attributes":{"Enabled":"true","Token":"t3"}}
], "NextToken": "next [page]"}
{"Endpoints":[{"EndpointArn":"arn:aws:sns:us-east-1:123456789012:endpoint/APNS/shop/4","Attributes":{"Enabled":"false","Token":"t4"}}]}`,
			[]lists.Device{{User: "u1", Channel: "fcm", Token: "t1", OS: "android"}, {Channel: "apns", Environment: "sandbox", Purpose: "voip", Token: "t2"}},
			[]string{"line 4: EndpointArn is of a platform that cannot be reached; those are GCM, APNS, APNS_SANDBOX, APNS_VOIP and APNS_VOIP_SANDBOX",
				"line 6: Enabled is false: SNS holds the token for dead, or it was switched off"}},
		"Firebase, CSV": {lists.Options{Format: lists.Firebase}, "event_timestamp,instance_id,sdk_platform,app_name\n2026-01-31 12:00:00.000000 UTC,f1,ANDROID,com.example\n,,IOS,x\n",
			[]lists.Device{{FID: "f1", OS: "android", LastSeenAt: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}}, []string{"line 3: instance_id is empty"}},
		"Firebase, JSON": {lists.Options{Format: lists.Firebase}, `{"instance_id":"f1","sdk_platform":"IOS","project_number":"1"}`, []lists.Device{{FID: "f1", OS: "ios"}}, nil},
		"a JSON document that ends too early": {lists.Options{Format: lists.NDJSON}, `[{"user":"u1","token":"t"},{"user":"u2"`, []lists.Device{{User: "u1", Token: "t"}},
			[]string{"end: what begins in line 1 has no end; nothing after it can be read"}},
		"something else than an array": {lists.Options{Format: lists.SNS}, `{"Endpoints":{"a":1}}`, nil,
			[]string{"end: line 1 has something else than the array of devices that is expected"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entries, problems := read(t, c.list, c.o)
			var got []lists.Device
			for _, e := range entries {
				got = append(got, e.Device)
			}
			require.Equal(t, c.want, got)
			require.Equal(t, c.problems, problems)
		})
	}
}

// TestFormatsAreExplained: each has its row, and what CSV has for a column is named.
func TestFormatsAreExplained(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/devices.md")
	require.NoError(t, err)
	for _, f := range lists.Formats() {
		require.Contains(t, string(page), "| `"+string(f)+"` |")
		require.Contains(t, string(page), "**`"+string(f)+"`.**")
	}
	var b bytes.Buffer
	w, err := lists.NewWriter(&b, lists.CSV)
	require.NoError(t, err)
	require.NoError(t, w.Flush())
	for name := range strings.SplitSeq(strings.TrimSpace(b.String()), ",") {
		require.Contains(t, string(page), "`"+name+"`")
	}
}
