package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// Paging is what every list takes.
type Paging struct {
	Cursor string `query:"cursor" maxLength:"128" doc:"next_cursor of the page before"`
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"How many to return at most"`
}

const defaultLimit = 50

// List is a page of a list.
type List[T any] struct {
	Data       []T     `json:"data"`
	NextCursor *string `json:"next_cursor" doc:"Send it as cursor to get the next page; null on the last one. A page of a filtered list looks at 5,000 rows at most, so that it may have few or none and a next one all the same"`
}

// more is how many rows to ask a store for: one beyond the page tells whether
// there is another.
func (p Paging) more() int { return p.size() + 1 }

func (p Paging) size() int {
	if p.Limit == 0 {
		return defaultLimit
	}
	return p.Limit
}

// after reads the cursor of the named list. Without one it is the zero cursor.
func (p Paging) after(list string) (delivery.Cursor, error) {
	if p.Cursor == "" {
		return delivery.Cursor{}, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(p.Cursor)
	if err != nil || strings.ContainsAny(p.Cursor, "\r\n") || len(raw) != cursorLen+cursorSum || string(raw[cursorLen:]) != checksum(list, raw[:cursorLen]) {
		return delivery.Cursor{}, problem.AtField("cursor", "is not a cursor of this list; pass next_cursor on as it was given")
	}
	c := delivery.Cursor{
		Notification: ids.ID(binary.BigEndian.Uint64(raw)),
		Target:       ids.ID(binary.BigEndian.Uint64(raw[8:])),
	}
	if ms := binary.BigEndian.Uint64(raw[16:]); ms != 0 {
		c.At = time.UnixMilli(int64(ms)).UTC()
	}
	return c, nil
}

const (
	cursorLen = 24 // two ids and a time in milliseconds
	cursorSum = 6
)

// checksum finds cursors that were cut, edited or taken from another list. It is
// no protection: a cursor holds nothing that its owner may not know, and every
// query names the tenant as well.
func checksum(list string, raw []byte) string {
	sum := sha256.Sum256(append([]byte(list+"\x00"), raw...))
	return string(sum[:cursorSum])
}

func formatCursor(list string, c delivery.Cursor) string {
	raw := make([]byte, cursorLen, cursorLen+cursorSum)
	binary.BigEndian.PutUint64(raw, uint64(c.Notification))
	binary.BigEndian.PutUint64(raw[8:], uint64(c.Target))
	if !c.At.IsZero() {
		binary.BigEndian.PutUint64(raw[16:], uint64(c.At.UnixMilli()))
	}
	return base64.RawURLEncoding.EncodeToString(append(raw, checksum(list, raw)...))
}

// cut takes off the row that is one too many, and gives the cursor of the next
// page if there was one.
func cut[R any](p Paging, list string, rows []R, place func(R) delivery.Cursor) ([]R, *string) {
	if len(rows) <= p.size() {
		return rows, nil
	}
	rows = rows[:p.size()]
	next := formatCursor(list, place(rows[len(rows)-1]))
	return rows, &next
}

// page shows rows, of which there may be one too many.
func page[R, T any](p Paging, list string, rows []R, place func(R) delivery.Cursor, show func(R) T) List[T] {
	rows, next := cut(p, list, rows, place)
	out := singlePage(rows, show)
	out.NextCursor = next
	return out
}

// upTo is page for a list of which only a part was looked at: where that was not its
// end, the next page goes on behind it, though this one is not full.
func upTo[R, T any](p Paging, list string, rows []R, end delivery.Cursor, place func(R) delivery.Cursor, show func(R) T) List[T] {
	out := page(p, list, rows, place, show)
	if out.NextCursor == nil && end != (delivery.Cursor{}) {
		next := formatCursor(list, end)
		out.NextCursor = &next
	}
	return out
}

// singlePage is a list that has one page.
func singlePage[R, T any](rows []R, show func(R) T) List[T] {
	out := List[T]{Data: make([]T, len(rows))}
	for i, r := range rows {
		out.Data[i] = show(r)
	}
	return out
}

// byID is the place of a row in a list that is ordered by id.
func byID(id ids.ID) delivery.Cursor { return delivery.Cursor{Notification: id} }
