package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/carillonhq/carillon/devices/lists"
)

const (
	importRows  = 500       // in a request
	importBytes = 512 << 10 // of a request: half of what a server takes as it comes
	importTries = 5         // of a request that the server has no time for
	shownErrors = 20        // where there is no file for them
)

// importOrder is what is to be imported.
type importOrder struct {
	file, errors string
	list         lists.Options
	fromLine     int
	dry          bool
	pause        time.Duration // after the first try; each that follows is twice as long
}

func newDevicesImportCommand(c *cli, f *clientFlags) *cobra.Command {
	var (
		o       = importOrder{pause: time.Second}
		format  string
		columns []string
	)
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Register the devices of a list, such as another system has exported; - reads standard input", Args: oneArg,
		Long: "Register the devices of a list, such as another system has exported. FILE may be compressed with gzip, and may be of any size; - reads standard input.\n" +
			"An import that was cut short can be begun again, or go on with --from-line: who registers a device once more changes nothing.",
		Example: "  carillon devices import tokens.txt --format tokens --channel fcm --anonymous old-\n" +
			"  carillon devices import users.csv --column 'push token=token' --column id=user --channel apns --errors refused.ndjson\n" +
			"  carillon devices import onesignal.csv.gz --format onesignal --dry-run",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.file, o.list.Format, o.list.Columns = args[0], lists.Format(format), map[string]string{}
			if format == "" {
				o.list.Format = formatOf(o.file)
			}
			if o.list.Format == "" {
				return usageError{fmt.Errorf("the name of the file does not say what it is; give --format, one of %v", lists.Formats())}
			}
			for _, s := range columns {
				column, field, ok := strings.Cut(s, "=")
				if !ok {
					return usageError{errors.New("--column must be like 'push token=token'")}
				}
				o.list.Columns[column] = field
			}
			if len(columns) > 0 && o.list.Format != lists.CSV {
				return usageError{errors.New("--column is for --format csv only")}
			}
			return c.importDevices(cmd.Context(), f, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&format, "format", "", fmt.Sprintf("what the file is: %v; absent: as its name ends, in .csv, .ndjson or .jsonl", lists.Formats()))
	flags.StringArrayVar(&columns, "column", nil, "of CSV: column=field; may be repeated")
	flags.StringVar(&o.list.Default.App, "app", "", "the app of devices that name none")
	flags.StringVar(&o.list.Default.Channel, "channel", "", "the channel of tokens that name none: fcm or apns")
	flags.StringVar(&o.list.Anonymous, "anonymous", "", "make a user for each device that names none: this, and a hash of the address")
	flags.StringVar(&o.errors, "errors", "", "write what was refused to this file: a JSON object a line, with line, field and reason")
	flags.IntVar(&o.fromLine, "from-line", 1, "go on at this line of the file")
	flags.BoolVar(&o.dry, "dry-run", false, "only read the file, and tell which rows cannot be read; the server is not asked")
	return cmd
}

// formatOf tells what a file is by its name.
func formatOf(name string) lists.Format {
	name = strings.TrimSuffix(strings.ToLower(name), ".gz")
	switch {
	case strings.HasSuffix(name, ".csv"):
		return lists.CSV
	case strings.HasSuffix(name, ".ndjson"), strings.HasSuffix(name, ".jsonl"):
		return lists.NDJSON
	}
	return ""
}

func (c *cli) importDevices(ctx context.Context, f *clientFlags, o importOrder) (err error) {
	i := importing{cli: c, importOrder: o, counts: map[string]int{}, began: time.Now(), next: o.fromLine}
	if !o.dry {
		if i.client, err = f.client(c); err != nil {
			return err
		}
	}
	src := c.in
	if o.file != "-" {
		file, err := os.Open(o.file)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		if info, err := file.Stat(); err == nil {
			i.size = info.Size()
		}
		src = file
	}
	list, err := lists.NewReader(&counted{src, &i.read}, o.list)
	if err != nil {
		return err
	}
	if ignored := list.Ignored(); len(ignored) > 0 {
		_, _ = fmt.Fprintf(c.err, "columns that are no field, and are left out: %.200q\n", ignored)
	}
	if o.errors != "" {
		mode := os.O_CREATE | os.O_WRONLY | os.O_TRUNC
		if o.fromLine > 1 {
			mode = os.O_CREATE | os.O_WRONLY | os.O_APPEND
		}
		file, err := os.OpenFile(o.errors, mode, 0o600)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		i.refusals = json.NewEncoder(file)
	}
	return i.finish(i.run(ctx, list))
}

// counted counts what is read.
type counted struct {
	io.Reader
	n *int64
}

func (r *counted) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	*r.n += int64(n)
	return n, err
}

// importing is an import that is under way.
type importing struct {
	*cli
	importOrder
	client   *client
	refusals *json.Encoder // nil: to standard error
	batch    []lists.Entry
	bytes    int
	seen     int            // rows
	sent     int            // rows that were sent, or would have been
	refused  int            // rows
	counts   map[string]int // of results, by status
	next     int            // the line to go on with: that of the first row that is not sent
	read     int64
	size     int64 // of the file; 0: not known
	began    time.Time
	shown    time.Time
}

// run reads the list, and sends what it reads.
func (i *importing) run(ctx context.Context, list *lists.Reader) error {
	for {
		e, err := list.Read()
		var wrong *lists.RowError
		switch {
		case errors.Is(err, io.EOF):
			return i.send(ctx)
		case errors.As(err, &wrong):
			if wrong.Line < i.fromLine {
				continue
			}
			i.seen++
			if err := i.refuse(refusal{Line: wrong.Line, Field: wrong.Field, Reason: wrong.Reason, Code: "unreadable"}); err != nil {
				return err
			}
			continue
		case err != nil:
			return errors.Join(i.send(ctx), err)
		case e.Line < i.fromLine:
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		}
		e.Device.ID = "" // where it comes from it is another device
		b, err := json.Marshal(e.Device)
		if err != nil {
			return err
		}
		if len(i.batch) == importRows || i.bytes+len(b) > importBytes {
			if err := i.send(ctx); err != nil {
				return err
			}
		}
		if len(i.batch) == 0 {
			i.next = e.Line
		}
		i.seen++
		i.batch, i.bytes = append(i.batch, e), i.bytes+len(b)+1
	}
}

// send registers what was read.
func (i *importing) send(ctx context.Context) error {
	if len(i.batch) == 0 {
		return nil
	}
	if !i.dry {
		in := map[string]any{"devices": devicesOf(i.batch)}
		results, err := i.register(ctx, in)
		if err != nil {
			return err
		}
		for k, r := range results {
			if r.Error == nil {
				i.counts[r.Status]++
				continue
			}
			if err := i.refuse(r.Error.refusals(i.batch[k].Line)...); err != nil {
				return err
			}
		}
	}
	i.sent += len(i.batch)
	i.batch, i.bytes = i.batch[:0], 0
	i.progress()
	return nil
}

func devicesOf(batch []lists.Entry) []lists.Device {
	out := make([]lists.Device, len(batch))
	for k := range batch {
		out[k] = batch[k].Device
	}
	return out
}

type importResult struct {
	Status string    `json:"status"`
	Error  *apiError `json:"error"`
}

// register sends a request, and sends it again where the server had no time for it, or for
// a part of it.
func (i *importing) register(ctx context.Context, in any) ([]importResult, error) {
	pause := i.pause
	for try := 1; ; try++ {
		var out struct {
			Results []importResult `json:"results"`
		}
		err := i.client.call(ctx, http.MethodPost, "/v1/devices/batch", in, &out)
		if err == nil && len(out.Results) != len(i.batch) {
			return nil, errors.New("the answer of the server has another number of results")
		}
		for _, r := range out.Results {
			if r.Error != nil && r.Error.Status >= http.StatusInternalServerError {
				err = r.Error
			}
		}
		var said *apiError
		if err == nil || !errors.As(err, &said) || try == importTries ||
			(said.Status < http.StatusInternalServerError && said.Status != http.StatusTooManyRequests) {
			return out.Results, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
		pause *= 2
	}
}

// refusal is a line of the file of errors.
type refusal struct {
	Line   int    `json:"line"`
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason"`
	Code   string `json:"code"`
}

func (e *apiError) refusals(line int) (list []refusal) {
	for _, f := range e.Errors {
		list = append(list, refusal{Line: line, Field: f.Path, Reason: f.Detail, Code: e.Code})
	}
	if len(list) == 0 {
		list = []refusal{{Line: line, Reason: e.Detail, Code: e.Code}}
	}
	return list
}

// refuse notes what is wrong with a row.
func (i *importing) refuse(list ...refusal) error {
	i.refused++
	for _, f := range list {
		if i.refusals != nil {
			if err := i.refusals.Encode(f); err != nil {
				return err
			}
			continue
		}
		if i.refused <= shownErrors {
			_, _ = fmt.Fprintln(i.err, &lists.RowError{Line: f.Line, Field: f.Field, Reason: f.Reason})
		}
	}
	return nil
}

// progress shows how far it is, once a second, to whoever watches.
func (i *importing) progress() {
	if time.Since(i.shown) < time.Second || !isTerminal(i.err) {
		return
	}
	i.shown = time.Now()
	line := fmt.Sprintf("%d rows, %s", i.seen, i.rate())
	if i.size > 0 && i.read > 0 {
		part := min(float64(i.read)/float64(i.size), 1)
		left := time.Duration(float64(time.Since(i.began)) * (1 - part) / part)
		line += fmt.Sprintf(", %.0f %% of the file, %s left", 100*part, left.Round(time.Second))
	}
	_, _ = fmt.Fprintf(i.err, "\r\x1b[K%s", line)
}

func (i *importing) rate() string {
	return fmt.Sprintf("%.0f a second", float64(i.seen)/max(time.Since(i.began).Seconds(), 0.001))
}

// finish tells what came of it.
func (i *importing) finish(err error) error {
	if isTerminal(i.err) {
		_, _ = fmt.Fprint(i.err, "\r\x1b[K")
	}
	if i.refused > shownErrors && i.refusals == nil {
		_, _ = fmt.Fprintf(i.err, "and %d more; give --errors to have them all\n", i.refused-shownErrors)
	}
	if i.dry {
		_, _ = fmt.Fprintf(i.out, "would send %d rows, %d cannot be read\n", i.sent, i.refused)
	} else {
		registered := 0
		for _, n := range i.counts {
			registered += n
		}
		_, _ = fmt.Fprintf(i.out, "registered %d (%d created, %d updated, %d rebound, %d replaced), refused %d, %s\n", registered,
			i.counts["created"], i.counts["updated"], i.counts["rebound"], i.counts["replaced"], i.refused, i.rate())
	}
	switch {
	case err != nil && i.dry:
		return err
	case err != nil:
		return fmt.Errorf("%w\nit ended at line %d: go on with --from-line %d", err, i.next, i.next)
	case i.refused > 0:
		return fmt.Errorf("%d rows were refused", i.refused)
	}
	return nil
}
