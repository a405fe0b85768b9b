package lists

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// beginning is how much of a file is looked at to tell what it is.
const beginning = 4 << 10

// buffer is what is read ahead: several rows, of which none is moved often.
const buffer = 4 * MaxRow

// kinds of files that are no text, by how they begin.
var kinds = []struct{ magic, refusal string }{
	{"PK\x03\x04", "is a ZIP archive, or a spreadsheet such as .xlsx; unpack it, or save the sheet as CSV in UTF-8"},
	{"\x28\xb5\x2f\xfd", "is compressed with zstd; unpack it: zstd -d"},
	{"BZh", "is compressed with bzip2; unpack it: bunzip2"},
	{"\xfd7zXZ\x00", "is compressed with xz; unpack it: unxz"},
	{"7z\xbc\xaf", "is a 7z archive; unpack it"},
	{"\xff\xfe\x00\x00", "is UTF-32; convert it: iconv -f UTF-32 -t UTF-8"},
	{"\x00\x00\xfe\xff", "is UTF-32; convert it: iconv -f UTF-32 -t UTF-8"},
	{"\xff\xfe", "is UTF-16; convert it: iconv -f UTF-16 -t UTF-8"},
	{"\xfe\xff", "is UTF-16; convert it: iconv -f UTF-16 -t UTF-8"},
	{"SQLite format 3\x00", "is an SQLite database; export its table as CSV"},
	{"%PDF", "is a PDF"},
}

const anotherEncoding = "convert it: iconv -f WINDOWS-1252 -t UTF-8, if that is what it is"

// begin tells what a file is by its first bytes, and returns its text without a byte order
// mark.
func begin(src io.Reader) (*bufio.Reader, error) {
	text := bufio.NewReaderSize(src, buffer)
	if head, _ := text.Peek(2); string(head) == "\x1f\x8b" {
		plain, err := gzip.NewReader(text)
		if err != nil {
			return nil, fmt.Errorf("the file is not whole: %w", err)
		}
		text = bufio.NewReaderSize(plain, buffer)
	}
	head, err := text.Peek(beginning)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the list: %w", err)
	}
	for _, k := range kinds {
		if bytes.HasPrefix(head, []byte(k.magic)) {
			return nil, errors.New("the file " + k.refusal)
		}
	}
	if bytes.HasPrefix(head, []byte("\ufeff")) {
		_, _ = text.Discard(len("\ufeff"))
		head = head[len("\ufeff"):]
	}
	switch zeros := bytes.Count(head, []byte{0}); {
	case len(bytes.TrimSpace(head)) == 0 && len(head) < beginning-len("\ufeff"):
		return nil, errors.New("the file is empty")
	case zeros > len(head)/3:
		return nil, errors.New("the file is UTF-16; convert it: iconv -f UTF-16LE -t UTF-8")
	case zeros > 0:
		return nil, errors.New("the file is not text")
	case !utf8.Valid(whole(head)):
		return nil, errors.New("the file is not UTF-8; " + anotherEncoding)
	}
	return text, nil
}

// whole leaves out a character that is cut off at the end.
func whole(b []byte) []byte {
	for i := len(b) - 1; i >= 0 && i >= len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return b[:i]
			}
			break
		}
	}
	return b
}
