package archive_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store/backup/archive"
)

var header = archive.Header{Version: "v1", Schema: 5, Database: "sqlite",
	CreatedAt: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), SnapshotAt: time.Date(2026, 3, 1, 12, 0, 1, 0, time.UTC)}

// row has every kind of value, with those that encodings like to change.
func row(n int) []any {
	return []any{int64(n), int64(math.MinInt64), nil, "", "\xff no UTF-8 \x00", []byte{}, []byte{0, 255}, 1.5, int64(math.MaxInt64)}
}

var columns = []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"}

func write(t testing.TB, rows int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := archive.NewWriter(&b, header)
	require.NoError(t, err)
	require.NoError(t, w.Table(archive.Table{Name: "first", Columns: columns}))
	for n := range rows {
		require.NoError(t, w.Row(row(n)))
	}
	require.NoError(t, w.Table(archive.Table{Name: "empty", Columns: []string{"x"}}))
	require.NoError(t, w.Table(archive.Table{Name: "last", Columns: []string{"x"}}))
	require.NoError(t, w.Row([]any{[]byte(nil)}))
	summary, err := w.Close()
	require.NoError(t, err)
	require.EqualValues(t, rows+1, summary.Rows())
	return b.Bytes()
}

func TestWhatIsReadIsWhatWasWritten(t *testing.T) {
	t.Parallel()
	const rows = 1234 // more than one record
	file := write(t, rows)
	var (
		tables []archive.Table
		seen   archive.Header
		next   int
	)
	summary, err := archive.Read(bytes.NewReader(file), archive.Visitor{
		Header: func(h archive.Header) error { seen = h; return nil },
		Table:  func(x archive.Table) error { tables = append(tables, x); return nil },
		Rows: func(list [][]any) error {
			for _, r := range list {
				if len(tables) == 3 {
					require.Equal(t, []any{[]byte{}}, r, "an empty octet string is not absent")
					continue
				}
				require.Equal(t, row(next), r)
				next++
			}
			return nil
		},
	})
	require.NoError(t, err)
	require.Equal(t, header, seen)
	require.Equal(t, rows, next)
	require.Equal(t, []archive.Table{{Name: "first", Columns: columns}, {Name: "empty", Columns: []string{"x"}}, {Name: "last", Columns: []string{"x"}}}, tables)
	require.Equal(t, []archive.Count{{Table: "first", Rows: rows}, {Table: "empty"}, {Table: "last", Rows: 1}}, summary.Tables)
	require.Len(t, summary.Sum, 64)
}

func TestAFileThatIsCutOffIsDamaged(t *testing.T) {
	t.Parallel()
	file := write(t, 20)
	for n := range file {
		_, err := archive.Read(bytes.NewReader(file[:n]), archive.Visitor{})
		require.ErrorIs(t, err, archive.ErrDamaged, "of %d bytes the first %d", len(file), n)
	}
	_, err := archive.Read(io.MultiReader(bytes.NewReader(file), strings.NewReader("more")), archive.Visitor{})
	require.ErrorIs(t, err, archive.ErrDamaged)
}

func TestAFileWithAChangedOctetIsDamaged(t *testing.T) {
	t.Parallel()
	file := write(t, 20)
	for n := range file {
		for _, flip := range []byte{1, 0x80, 0xff} {
			changed := bytes.Clone(file)
			changed[n] ^= flip
			_, err := archive.Read(bytes.NewReader(changed), archive.Visitor{})
			require.Error(t, err, "octet %d of %d", n, len(file))
		}
	}
}

// TestLossThatCompressionDoesNotSee: records that are whole, but not all there.
func TestLossThatCompressionDoesNotSee(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(*archive.Writer) error{
		"rows of no table": func(w *archive.Writer) error { return w.Row([]any{int64(1)}) },
		"a short row": func(w *archive.Writer) error {
			return errors.Join(w.Table(archive.Table{Name: "t", Columns: []string{"a", "b"}}), w.Row([]any{int64(1)}))
		},
		"another type": func(w *archive.Writer) error {
			return errors.Join(w.Table(archive.Table{Name: "t", Columns: []string{"a"}}), w.Row([]any{int32(1)}))
		},
	} {
		var b bytes.Buffer
		w, err := archive.NewWriter(&b, header)
		require.NoError(t, err)
		require.Error(t, write(w), name)
		w.Abandon()
		_, err = archive.Read(&b, archive.Visitor{})
		require.ErrorIs(t, err, archive.ErrDamaged, name)
	}
}

func TestOtherFilesAreSaidToBeNone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "SQLite format 3\x00", "carillon-backup x\n", "carillon-backup 0\n", strings.Repeat("x", 1<<20)} {
		_, err := archive.Read(strings.NewReader(text), archive.Visitor{})
		require.ErrorIs(t, err, archive.ErrDamaged)
	}
	_, err := archive.Read(strings.NewReader("carillon-backup 2\n"), archive.Visitor{})
	require.ErrorContains(t, err, "newer")
	require.NotErrorIs(t, err, archive.ErrDamaged, "it may be sound")
}

func TestAVisitorEndsTheReading(t *testing.T) {
	t.Parallel()
	enough := errors.New("enough")
	_, err := archive.Read(bytes.NewReader(write(t, 3)), archive.Visitor{Table: func(archive.Table) error { return enough }})
	require.ErrorIs(t, err, enough)
}

func FuzzRead(f *testing.F) {
	f.Add(write(f, 3))
	f.Add([]byte("carillon-backup 1\n"))
	f.Fuzz(func(_ *testing.T, file []byte) {
		_, _ = archive.Read(bytes.NewReader(file), archive.Visitor{}) // neither panics nor asks for more than there is
	})
}
