package egress

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// maxDials is how many connections one exchange may open: a host that ends each of
// them before it has served a request would be dialled until the time is over.
const maxDials = 4

// errEnding says that a host has done so.
var errEnding = fmt.Errorf("egress: the host ends every connection: %w", io.EOF)

// bounded is a connection that is closed when no exchange has used it for so long that
// the last one must have ended. HTTP/2 forgets connections that the host has ended
// with GOAWAY and does not always close them.
type bounded struct {
	net.Conn
	life  time.Duration
	timer *time.Timer
}

// dialBounded adds both to a dialler's DialContext.
func dialBounded(dial func(ctx context.Context, network, address string) (net.Conn, error), life time.Duration) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok && x.dials.Add(1) > maxDials {
			return nil, errEnding
		}
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &bounded{Conn: c, life: life, timer: time.AfterFunc(life, func() { _ = c.Close() })}, nil
	}
}

func (b *bounded) used() { b.timer.Reset(b.life) }

// Close closes it and ends the timer.
func (b *bounded) Close() error {
	b.timer.Stop()
	return b.Conn.Close()
}

// below is the connection below TLS.
func below(c net.Conn) net.Conn {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return c
}
