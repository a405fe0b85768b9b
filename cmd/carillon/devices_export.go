package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/devices/lists"
)

const (
	exportTries = 5 // that bring nothing, one after the other
	// exportQuiet is how long a server may say nothing: it passes over what is not asked for.
	exportQuiet = 5 * time.Minute
	partSuffix  = ".part"
)

// exportOrder is what is to be exported.
type exportOrder struct {
	file   string
	format lists.Format
	query  url.Values
	pause  time.Duration // after the first try that brings nothing; each that follows is twice as long
}

func newDevicesExportCommand(c *cli, f *clientFlags) *cobra.Command {
	var (
		o      = exportOrder{pause: time.Second}
		format string
		texts  = map[string]*string{}
	)
	cmd := &cobra.Command{
		Use: "export FILE", Short: "Write all devices to a list that import takes, with their addresses and keys; - writes to standard output", Args: oneArg,
		Long: "Write all devices to a list that `carillon devices import` takes, with their addresses and keys; - writes to standard output.\n" +
			"FILE is there when it is whole: until then it is FILE.part. What is cut on the way goes on by itself. It needs a key with the scope admin.",
		Example: "  carillon devices export devices.ndjson\n" +
			"  carillon devices export - --format ndjson --app shop | gzip > shop.ndjson.gz\n" +
			"  carillon devices export more.csv --after dev_0d1kq3w8r000c",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.file, o.format, o.query = args[0], lists.Format(format), url.Values{}
			if format == "" {
				o.format = formatOf(o.file)
			}
			if o.format != lists.NDJSON && o.format != lists.CSV {
				return usageError{errors.New("give --format ndjson or --format csv; absent, it is as the name of the file ends, in .csv, .ndjson or .jsonl")}
			}
			for name, v := range texts {
				if *v != "" {
					o.query.Set(name, *v)
				}
			}
			return c.exportDevices(cmd.Context(), f, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&format, "format", "", "ndjson or csv; absent: as the name of the file ends, in .csv, .ndjson or .jsonl")
	for _, t := range []struct{ name, help string }{{"app", "only of this app"}, {"channel", "only of this channel: fcm, apns, webpush"},
		{"status", "only with this status: active, suspect, retired; absent: all but what is retired or has expired"},
		{"after", "only behind this device (dev_...), such as the last of an export that ended early"}} {
		texts[t.name] = flags.String(t.name, "", t.help)
	}
	return cmd
}

func (c *cli) exportDevices(ctx context.Context, f *clientFlags, o exportOrder) (err error) {
	x, err := f.client(c)
	if err != nil {
		return err
	}
	e := exporting{cli: c, exportOrder: o, client: x, began: time.Now()}
	e.client.http = &http.Client{} // how long it takes depends on how much there is
	to := c.out
	var file *os.File
	if o.file != "-" {
		file, err = os.OpenFile(o.file+partSuffix, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s is there, of an export that ended early or is under way: move it away, or remove it", o.file+partSuffix)
		}
		if err != nil {
			return err
		}
		to = file
	}
	e.to = bufio.NewWriterSize(to, 64<<10)
	if o.format == lists.CSV {
		if e.csv, err = lists.NewWriter(e.to, lists.CSV); err != nil {
			return err
		}
	}
	err = e.run(ctx)
	if flushed := e.flush(); flushed != nil {
		err = writeError{flushed}
	}
	if file != nil {
		if closed := errors.Join(file.Sync(), file.Close()); closed != nil {
			err = writeError{closed}
		}
		if err == nil {
			err = os.Rename(file.Name(), o.file)
		} else if e.n == 0 {
			_ = os.Remove(file.Name())
		}
	}
	return e.finish(err)
}

// exporting is an export that is under way. What comes from the server is NDJSON, whatever is
// written: what is cut within a line has no line's end.
type exporting struct {
	*cli
	exportOrder
	client *client
	to     *bufio.Writer
	csv    *lists.Writer // nil: NDJSON
	n      int           // devices
	began  time.Time
	shown  time.Time
}

func (e *exporting) flush() error {
	if e.csv != nil {
		if err := e.csv.Flush(); err != nil {
			return err
		}
	}
	return e.to.Flush()
}

// errNotWhole is an answer that ended without a word that it is whole. A proxy may have lost that: then the next
// answer, which is short, says so in a header.
var errNotWhole = errors.New("the answer of the server ended before it was whole")

// run asks until the answer is whole, and each time for what has not come yet.
func (e *exporting) run(ctx context.Context) error {
	pause := e.pause
	for try := 1; ; try++ {
		before := e.n
		err := e.receive(ctx)
		var said *apiError
		var failed writeError
		switch {
		case err == nil, ctx.Err() != nil, errors.As(err, &failed):
			return err
		case errors.As(err, &said) && said.Status < http.StatusInternalServerError && said.Status != http.StatusTooManyRequests:
			return err
		case e.n > before:
			try, pause = 0, e.pause
		case try == exportTries:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause *= 2
	}
}

// writeError is a fault of the file, which no other try mends.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// receive writes what one answer brings.
func (e *exporting) receive(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	quiet := time.AfterFunc(exportQuiet, cancel)
	defer quiet.Stop()
	res, err := e.client.open(ctx, "/v1/devices/export?"+e.query.Encode())
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewReaderSize(&watched{res.Body, quiet}, 2*lists.MaxRow)
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			break // what is left has no end
		}
		if err != nil {
			return fmt.Errorf("the answer broke off: %w", err)
		}
		if err := e.write(line); err != nil {
			return err
		}
	}
	const complete = "Carillon-Complete"
	if res.Header.Get(complete) != "true" && res.Trailer.Get(complete) != "true" {
		return errNotWhole
	}
	return nil
}

// watched tells that something has come.
type watched struct {
	io.Reader
	quiet *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 {
		w.quiet.Reset(exportQuiet)
	}
	return n, err
}

func (e *exporting) write(line []byte) error {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil
	}
	var d lists.Device
	if err := json.Unmarshal(line, &d); err != nil || d.ID == "" {
		return errors.New("the answer of the server is no list of devices")
	}
	var err error
	if e.csv != nil {
		err = e.csv.Write(d)
	} else {
		_, err = e.to.Write(line)
	}
	if err != nil {
		return writeError{err}
	}
	e.n++
	e.query.Set("after", d.ID)
	e.progress()
	return nil
}

// progress shows how far it is, once a second, to whoever watches.
func (e *exporting) progress() {
	if time.Since(e.shown) < time.Second || !isTerminal(e.err) {
		return
	}
	e.shown = time.Now()
	_, _ = fmt.Fprintf(e.err, "\r\x1b[K%d devices, %s", e.n, e.rate())
}

func (e *exporting) rate() string {
	return fmt.Sprintf("%.0f a second", float64(e.n)/max(time.Since(e.began).Seconds(), 0.001))
}

// finish tells what came of it, beside the list.
func (e *exporting) finish(err error) error {
	if isTerminal(e.err) {
		_, _ = fmt.Fprint(e.err, "\r\x1b[K")
	}
	var failed writeError
	switch {
	case errors.As(err, &failed):
		return fmt.Errorf("what was exported could not be written, and is not whole: %w", err)
	case err == nil:
		_, _ = fmt.Fprintf(e.err, "exported %d devices, %s\n", e.n, e.rate())
		return nil
	case e.n == 0:
		return err
	case e.file == "-":
		return fmt.Errorf("%w\nthe export ended early, after %d devices: go on with --after %s", err, e.n, e.query.Get("after"))
	}
	return fmt.Errorf("%w\nthe export ended early: %d devices are in %s; go on in another file with --after %s", err, e.n, e.file+partSuffix, e.query.Get("after"))
}
