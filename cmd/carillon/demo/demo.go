// Package demo shows all of Carillon on one machine: it has a server started on a
// fresh database, plays the providers, sends notifications through the API, and
// shows what becomes of every delivery.
//
// Files: demo.go runs it, targets.go registers devices and an endpoint, story.go
// sends to them and checks what comes of it, table.go shows the deliveries, page.go
// is the backend of the page for a browser.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/carillonhq/carillon/simulator"
)

// Options are what the command line asks for, and what the demo needs of the
// program. All functions are needed.
type Options struct {
	Listen string    // where the server listens, if that address is free
	Once   bool      // end after the story
	Out    io.Writer // where everything is shown

	// StartServer makes a server that listens. It serves once its Run is called.
	StartServer func(context.Context, ServerOptions) (Server, error)
	// Client calls the API at url with a key. A tenant is named only with the key
	// of an operator.
	Client func(url, key, tenant string) Call
	// Table sets rows under headings.
	Table func(head []string, rows [][]string) string
}

// ServerOptions say what kind of server the demo needs.
type ServerOptions struct {
	Dir       string // for its database and other files
	Listen    string
	Simulator *simulator.Simulator // stands in for all providers
	Page      http.Handler         // serves /demo
}

// Server is a server whose database is empty but for the key of an operator.
type Server struct {
	URL, MetricsURL string
	OperatorKey     string
	Run             func(context.Context) error // serves until the context ends
}

// Call calls the API. in and out are JSON; either may be nil. The error of a call
// that was refused has a StatusCode method.
type Call func(ctx context.Context, method, path string, in, out any) error

// Run shows the demo. With Once it returns when the story has ended, with an error
// unless everything came out as expected; otherwise when ctx ends.
func Run(ctx context.Context, o Options) (err error) {
	dir, err := os.MkdirTemp("", "carillon-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	sim, err := simulator.Start(simulator.Options{})
	if err != nil {
		return fmt.Errorf("start the simulator: %w", err)
	}
	defer func() { err = errors.Join(err, sim.Close()) }()
	d, err := start(ctx, o, sim, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.end()) }()
	if err := d.story(ctx); err != nil {
		return err
	}
	if o.Once {
		return nil
	}
	d.printExamples()
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.ended:
		d.ended <- nil
		return err
	}
}

// demo is a running server with a tenant in it.
type demo struct {
	Options
	sim       *simulator.Simulator
	server    Server
	stop      context.CancelFunc
	ended     chan error // what the server's Run returned
	page      *page
	tenantKey string
	call      Call   // with the tenant's key
	bobs      string // the notification to bob, of which not everything arrived
}

// start runs a server that talks to the simulator.
func start(ctx context.Context, o Options, sim *simulator.Simulator, dir string) (*demo, error) {
	d := &demo{Options: o, sim: sim, ended: make(chan error, 1), page: &page{}}
	var err error
	d.server, err = o.StartServer(ctx, ServerOptions{Dir: dir, Listen: freeAddress(o.Listen, o.Once), Simulator: sim, Page: d.page.handler()})
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	go func() { d.ended <- d.server.Run(run) }()
	return d, nil
}

// freeAddress is the wanted address, or one with a free port where it is taken. A
// run that nobody will call from outside does not need a certain one.
func freeAddress(wanted string, anyPort bool) string {
	const free = "127.0.0.1:0"
	if anyPort {
		return free
	}
	l, err := net.Listen("tcp", wanted)
	if err != nil {
		return free
	}
	_ = l.Close()
	return wanted
}

// end stops the server and waits for it.
func (d *demo) end() error {
	d.stop()
	return <-d.ended
}

func (d *demo) print(format string, args ...any) { _, _ = fmt.Fprintf(d.Out, format+"\n", args...) }

// printExamples prints calls to try, with the tenant's real key.
func (d *demo) printExamples() {
	d.print(`
Now it is yours. Paste any of these (Ctrl-C ends the demo and forgets everything):

  # send a notification to all of alice's devices
  curl %[1]s/v1/notifications -H "Authorization: Bearer %[2]s" \
    -H "Content-Type: application/json" -d '{"to":{"users":["alice"]},"title":"Hello","body":"From curl."}'

  # what would be sent to each of them; nothing is sent
  curl %[1]s/v1/notifications -H "Authorization: Bearer %[2]s" \
    -H "Content-Type: application/json" -d '{"to":{"users":["alice"]},"title":"Hello","dry_run":true}'

  # what was there for bob, and what became of it on each of his devices, and why
  curl %[1]s/v1/users/bob/notifications -H "Authorization: Bearer %[2]s"
  curl %[1]s/v1/notifications/%[5]s/deliveries -H "Authorization: Bearer %[2]s"

  # dead letters, and what is on hold: nothing, unless you break something
  curl %[1]s/v1/dead-letters -H "Authorization: Bearer %[2]s"
  curl %[1]s/v1/holds -H "Authorization: Bearer %[2]s"

  A browser that gets notifications   %[1]s/demo/
  The API                             %[1]s/docs
  What the providers saw              %[3]s/
  Metrics                             %[4]s`,
		d.server.URL, d.tenantKey, d.sim.FCM().URL, d.server.MetricsURL, d.bobs)
}
