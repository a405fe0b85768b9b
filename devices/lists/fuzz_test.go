package lists_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/carillonhq/carillon/devices/lists"
)

// drain reads whatever it is, which must end, with lines that grow.
func drain(t *testing.T, list string, o lists.Options) {
	t.Helper()
	r, err := lists.NewReader(strings.NewReader(list), o)
	if err != nil {
		if !utf8.ValidString(err.Error()) {
			t.Fatalf("the error %q is no text", err)
		}
		return
	}
	for line, rows := 0, 0; ; rows++ {
		if rows > len(list)+1 {
			t.Fatal("there are more rows than bytes")
		}
		e, err := r.Read()
		var p *lists.RowError
		switch {
		case errors.Is(err, io.EOF):
			return
		case errors.As(err, &p):
			e.Line = p.Line
			if !utf8.ValidString(p.Error()) {
				t.Fatalf("the problem %q is no text", p.Error())
			}
		case err != nil:
			return
		}
		if e.Line < line || e.Line < 1 {
			t.Fatalf("line %d comes after line %d", e.Line, line)
		}
		line = e.Line
	}
}

func FuzzCSV(f *testing.F) {
	for _, s := range []string{"user,token\nu,t\n", "user;token\r\n\"u\r\n\"\"x\";t", "token\n\"", "token\na\"b\n\n,\n", "identifier,device_type\nt,0\n", "token\n\"a\"\r"} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, list string, preset bool) {
		o := lists.Options{Format: lists.CSV}
		if preset {
			o.Format = lists.OneSignal
		}
		drain(t, list, o)
	})
}

func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"user":"u","token":"t"}`, `[{"deviceToken":"t"},"x",7,[]]`, `{"Endpoints":[{"EndpointArn":"a:endpoint/GCM/x","Attributes":{}}],"NextToken":"n"}{`, `[[[`, `{"a":"\"`} {
		for i := range lists.Formats() {
			f.Add(s, i)
		}
	}
	f.Fuzz(func(t *testing.T, list string, format int) {
		all := lists.Formats()
		drain(t, list, lists.Options{Format: all[(format%len(all)+len(all))%len(all)], Default: lists.Device{Channel: "fcm"}})
	})
}
