package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"
)

// Writer writes one file.
type Writer struct {
	zstd   *zstd.Encoder
	sum    hash.Hash
	header Header
	tables []Count
	width  int
	rows   []cbor.RawMessage // encoded, of the table that is being written
	bytes  int
}

// NewWriter begins a file. Nothing is a backup until Close has returned nil.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	if _, err := io.WriteString(w, magic); err != nil {
		return nil, err
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderCRC(true), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	a := &Writer{zstd: z, sum: sha256.New(), header: h}
	err = a.record(kindHeader, headerRecord{Version: h.Version, Schema: h.Schema, Database: h.Database,
		CreatedAt: h.CreatedAt.UnixMilli(), SnapshotAt: h.SnapshotAt.UnixMilli()})
	if err != nil {
		return nil, errors.Join(err, z.Close())
	}
	return a, nil
}

// Table begins a table.
func (a *Writer) Table(t Table) error {
	if err := a.flush(); err != nil {
		return err
	}
	a.tables, a.width = append(a.tables, Count{Table: t.Name}), len(t.Columns)
	return a.record(kindTable, t)
}

// Row writes a row of the table that was begun last: for each column nil, an
// int64, a float64, a string or a []byte.
func (a *Writer) Row(values []any) error {
	if len(a.tables) == 0 || len(values) != a.width {
		return errors.New("a row that does not fit its table")
	}
	for i, v := range values {
		switch b := v.(type) {
		case nil, int64, float64, string:
		case []byte:
			if b == nil {
				values[i] = []byte{} // nil would come back as absent
			}
		default:
			return fmt.Errorf("values of type %T cannot be written to a backup", v)
		}
	}
	raw, err := cbor.Marshal(values)
	if err != nil {
		return err
	}
	a.rows, a.bytes = append(a.rows, raw), a.bytes+len(raw)
	a.tables[len(a.tables)-1].Rows++
	if len(a.rows) >= batchRows || a.bytes >= batchBytes {
		return a.flush()
	}
	return nil
}

func (a *Writer) flush() error {
	if len(a.rows) == 0 {
		return nil
	}
	err := a.record(kindRows, a.rows)
	a.rows, a.bytes = a.rows[:0], 0
	return err
}

// Close ends the file.
func (a *Writer) Close() (Summary, error) {
	err := a.flush()
	sum := a.sum.Sum(nil)
	if err == nil {
		err = a.record(kindEnd, endRecord{Tables: a.tables, SHA256: sum})
	}
	err = errors.Join(err, a.zstd.Close())
	return Summary{Header: a.header, Tables: a.tables, Sum: hex.EncodeToString(sum)}, err
}

// Abandon frees what a file that will not be ended has taken.
func (a *Writer) Abandon() {
	a.zstd.Reset(io.Discard)
	_ = a.zstd.Close()
}

func (a *Writer) record(kind byte, v any) error {
	body, err := cbor.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxRecord {
		return fmt.Errorf("a record of %d bytes is longer than a backup can hold", len(body))
	}
	head := append(binary.BigEndian.AppendUint32(make([]byte, 0, 5), uint32(len(body))), kind)
	for _, part := range [][]byte{head, body} {
		_, _ = a.sum.Write(part)
		if _, err := a.zstd.Write(part); err != nil {
			return err
		}
	}
	return nil
}
