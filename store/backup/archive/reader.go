package archive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"
)

// Visitor is told what a file holds, in its order. A nil member is not called.
// What it was told counts only when Read has returned nil: damage may show later.
type Visitor struct {
	Header func(Header) error
	Table  func(Table) error
	Rows   func(rows [][]any) error // of the table before; only valid during the call
}

// Read reads a whole file and checks all of it. Its errors are the visitor's, or
// wrap ErrDamaged, or say that another version is needed.
func Read(r io.Reader, v Visitor) (Summary, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	if err := readMagic(in); err != nil {
		return Summary{}, err
	}
	z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return Summary{}, err
	}
	defer z.Close()
	mode, err := decoding()
	if err != nil {
		return Summary{}, err
	}
	x := &reading{in: z, mode: mode, sum: sha256.New(), visit: v}
	for !x.ended {
		if err := x.record(); err != nil {
			return Summary{}, err
		}
	}
	// The checksum of the stream itself comes behind the last record.
	if n, err := io.Copy(io.Discard, z); err != nil || n > 0 {
		return Summary{}, damaged("there is something behind its end")
	}
	return x.summary, nil
}

func readMagic(in *bufio.Reader) error {
	line, err := in.ReadSlice('\n')
	word, number, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
	if err != nil || !ok || word+" " != magicWord {
		return damaged("it does not begin as a backup does; was it made by `carillon backup`?")
	}
	format, err := strconv.Atoi(number)
	switch {
	case err != nil || format < 1:
		return damaged("its format is no number")
	case format > Format:
		return fmt.Errorf("the backup has the format %d, and this version reads up to %d: use the version that wrote it, or a newer one", format, Format)
	}
	return nil
}

// reading is a file half way.
type reading struct {
	in      io.Reader
	mode    cbor.DecMode
	sum     hash.Hash
	visit   Visitor
	summary Summary
	begun   bool
	ended   bool
	columns int
	body    bytes.Buffer
}

func (x *reading) record() error {
	var head [5]byte
	if _, err := io.ReadFull(x.in, head[:]); err != nil {
		return cut(err)
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n > maxRecord {
		return damaged("a record says that it has %d bytes", n)
	}
	x.body.Reset() // grows with what is there, not with what was promised
	if _, err := io.CopyN(&x.body, x.in, int64(n)); err != nil {
		return cut(err)
	}
	kind, body := head[4], x.body.Bytes()
	if (kind == kindHeader) == x.begun {
		return damaged("its records are not in order")
	}
	if kind == kindEnd {
		return x.end(body)
	}
	_, _ = x.sum.Write(head[:])
	_, _ = x.sum.Write(body)
	switch kind {
	case kindHeader:
		return x.header(body)
	case kindTable:
		return x.table(body)
	case kindRows:
		return x.rows(body)
	}
	return damaged("it has a record of the unknown kind %q", kind)
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged("it breaks off before its end")
	}
	return damaged("%s", err)
}

func (x *reading) header(body []byte) error {
	var h headerRecord
	if err := x.mode.Unmarshal(body, &h); err != nil {
		return damaged("its header cannot be read")
	}
	x.begun = true
	x.summary.Header = Header{Version: h.Version, Schema: h.Schema, Database: h.Database,
		CreatedAt: time.UnixMilli(h.CreatedAt).UTC(), SnapshotAt: time.UnixMilli(h.SnapshotAt).UTC()}
	if x.visit.Header == nil {
		return nil
	}
	return x.visit.Header(x.summary.Header)
}

func (x *reading) table(body []byte) error {
	var t Table
	if err := x.mode.Unmarshal(body, &t); err != nil || t.Name == "" || len(t.Columns) == 0 {
		return damaged("a table cannot be read")
	}
	x.summary.Tables, x.columns = append(x.summary.Tables, Count{Table: t.Name}), len(t.Columns)
	if x.visit.Table == nil {
		return nil
	}
	return x.visit.Table(t)
}

func (x *reading) rows(body []byte) error {
	if len(x.summary.Tables) == 0 {
		return damaged("rows without a table")
	}
	var rows [][]any
	if err := x.mode.Unmarshal(body, &rows); err != nil {
		return damaged("rows of the table %s cannot be read", x.summary.Tables[len(x.summary.Tables)-1].Table)
	}
	for _, r := range rows {
		if len(r) != x.columns {
			return damaged("a row of the table %s has %d values instead of %d", x.summary.Tables[len(x.summary.Tables)-1].Table, len(r), x.columns)
		}
	}
	x.summary.Tables[len(x.summary.Tables)-1].Rows += int64(len(rows))
	if x.visit.Rows == nil {
		return nil
	}
	return x.visit.Rows(rows)
}

func (x *reading) end(body []byte) error {
	var e endRecord
	if err := x.mode.Unmarshal(body, &e); err != nil {
		return damaged("its end cannot be read")
	}
	if sum := x.sum.Sum(nil); !bytes.Equal(sum, e.SHA256) {
		return damaged("its content does not have the checksum that it was written with")
	}
	if len(e.Tables) != len(x.summary.Tables) {
		return damaged("it has %d tables instead of %d", len(x.summary.Tables), len(e.Tables))
	}
	for i, t := range e.Tables {
		if have := x.summary.Tables[i]; have != t {
			return damaged("it has %d rows of the table %s instead of %d of %s", have.Rows, have.Table, t.Rows, t.Table)
		}
	}
	x.summary.Sum, x.ended = hex.EncodeToString(e.SHA256), true
	return nil
}
