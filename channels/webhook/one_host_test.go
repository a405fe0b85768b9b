package webhook

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
)

// Endpoints of many tenants may be on one host: nobody waits for a connection that
// others hold.
func TestAHostIsReachedWhateverHangsThere(t *testing.T) {
	t.Parallel()
	const hung = 200
	ctx, end := context.WithTimeout(t.Context(), time.Minute)
	defer end()
	arrived := make(chan struct{}, hung)
	r := &receiver{}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body) // else the server does not notice that the sender is gone
		if req.URL.Path == "/fine" {
			return
		}
		arrived <- struct{}{}
		<-req.Context().Done()
	}))
	r.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.StartTLS() // HTTP/1.1: one request at a time on a connection
	t.Cleanup(r.Close)
	o := r.options()
	o.Limits.Timeout = time.Minute
	s, p := open(t, o), prepare(t, channels.Message{Notification: notificationID, Type: "a"})

	var sends sync.WaitGroup
	defer sends.Wait()
	cut, stop := context.WithCancel(ctx)
	defer stop()
	for range hung {
		sends.Go(func() { s.Send(cut, target(r.URL+"/hangs"), p, life(1)) })
	}
	for range hung {
		select {
		case <-arrived:
		case <-ctx.Done():
			require.Fail(t, "a request waits for a connection")
		}
	}
	require.Equal(t, channels.Accepted, s.Send(ctx, target(r.URL+"/fine"), p, life(1)).Outcome)
}
