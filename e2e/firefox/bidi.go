package firefox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// bidi is a WebDriver BiDi connection: commands with answers matched by id
// (W3C WebDriver BiDi). Events are ignored.
type bidi struct {
	conn *websocket.Conn
	done chan struct{} // closed when the connection has ended

	mu      sync.Mutex
	last    int
	waiting map[int]chan answer
	err     error // why the connection ended
}

// answer is what the browser says to one command.
type answer struct {
	ID      *int            `json:"id"`
	Type    string          `json:"type"` // "success", "error" or "event"
	Result  json.RawMessage `json:"result"`
	Error   string          `json:"error"`
	Message string          `json:"message"`
}

var errClosed = errors.New("the connection to the browser has ended")

// dialBidi connects and opens the session. Screenshots are large, so answers
// may be of any size.
func dialBidi(ctx context.Context, address string) (*bidi, error) {
	conn, _, err := websocket.Dial(ctx, address+"/session", nil)
	if err != nil {
		return nil, fmt.Errorf("dial WebDriver BiDi: %w", err)
	}
	conn.SetReadLimit(-1)
	b := &bidi{conn: conn, done: make(chan struct{}), waiting: map[int]chan answer{}}
	go b.read()
	if err := b.call(ctx, "session.new", map[string]any{"capabilities": map[string]any{}}, nil); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// read hands answers out until the connection ends, by close or by the browser.
func (b *bidi) read() {
	defer close(b.done)
	for {
		var a answer
		if err := wsjson.Read(context.Background(), b.conn, &a); err != nil {
			b.mu.Lock()
			b.err = fmt.Errorf("%w: %w", errClosed, err)
			b.mu.Unlock()
			return
		}
		if a.ID == nil {
			continue
		}
		b.mu.Lock()
		wait := b.waiting[*a.ID]
		delete(b.waiting, *a.ID)
		b.mu.Unlock()
		if wait != nil {
			wait <- a
		}
	}
}

// call sends one command and reads its result into result, unless that is nil.
func (b *bidi) call(ctx context.Context, method string, params, result any) error {
	wait := make(chan answer, 1)
	b.mu.Lock()
	b.last++
	id := b.last
	b.waiting[id] = wait
	b.mu.Unlock()
	err := wsjson.Write(ctx, b.conn, map[string]any{"id": id, "method": method, "params": params})
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case a := <-wait:
		if a.Type != "success" {
			return fmt.Errorf("%s: %s: %s", method, a.Error, a.Message)
		}
		if result == nil {
			return nil
		}
		if err := json.Unmarshal(a.Result, result); err != nil {
			return fmt.Errorf("%s: read the answer: %w", method, err)
		}
		return nil
	case <-b.done:
		b.mu.Lock()
		defer b.mu.Unlock()
		return fmt.Errorf("%s: %w", method, b.err)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

// close ends the connection at once, without waiting for a closing handshake.
func (b *bidi) close() {
	_ = b.conn.CloseNow()
	<-b.done
}
