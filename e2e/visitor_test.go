package e2e_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/e2e/firefox"
)

// visitor is a browser that has one page of the site open.
type visitor struct {
	*firefox.Browser
	t   testing.TB
	ctx context.Context
}

// visit starts a browser whose push service is at socketURL and opens the page.
func visit(ctx context.Context, t testing.TB, socketURL, page string) visitor {
	t.Helper()
	v := visitor{Browser: firefox.Run(t, firefox.Options{PushURL: socketURL}), t: t, ctx: ctx}
	require.NoError(t, v.Navigate(ctx, page))
	return v
}

// eval evaluates an expression as if the user had just clicked.
func (v visitor) eval(expr string, into any) {
	v.t.Helper()
	require.NoError(v.t, v.Evaluate(v.ctx, firefox.Script{Expr: expr, Gesture: true}, into))
}

// shown is a notification as getNotifications gives it.
type shown struct {
	Title string `json:"title"`
	Body  string `json:"body"`
	Tag   string `json:"tag"`
	Data  struct {
		URL      *string        `json:"url"`
		Delivery *string        `json:"delivery"`
		Data     map[string]any `json:"data"`
	} `json:"data"`
}

// notifications gives those of a worker that are up.
func (v visitor) notifications(scope string) (up []shown) {
	v.t.Helper()
	v.eval(`navigator.serviceWorker.getRegistration('`+scope+`').then((r) => r.getNotifications()).then((list) =>
		list.map(({ title, body, tag, data }) => ({ title, body, tag, data })))`, &up)
	return up
}

// during gives the detail of the next event of the page's client that action
// causes, such as "push", which comes when the notification is up.
func (v visitor) during(event string, action func()) (detail map[string]any) {
	v.t.Helper()
	v.eval(`(globalThis.heard = new Promise((resolve) =>
		carillon.addEventListener('`+event+`', (e) => resolve(e.detail), { once: true })), true)`, nil)
	action()
	v.eval("globalThis.heard", &detail)
	return detail
}

// clickNotification clicks it as soon as it is drawn, which is a moment after
// showNotification has resolved.
func (v visitor) clickNotification(title string) {
	v.t.Helper()
	err := v.ClickNotification(v.ctx, title)
	for errors.Is(err, firefox.ErrNoAlert) && v.ctx.Err() == nil {
		err = v.ClickNotification(v.ctx, title)
	}
	require.NoError(v.t, err)
}

// until waits until an expression is true of the page.
func (v visitor) until(expr string) {
	v.t.Helper()
	v.eval(`new Promise((resolve) => {
		const look = () => { if (`+expr+`) { watch.disconnect(); resolve(true); } };
		const watch = new MutationObserver(look);
		watch.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
		look();
	})`, nil)
}

// press clicks a control as soon as it is enabled.
func (v visitor) press(selector string) {
	v.t.Helper()
	v.until("!document.querySelector('" + selector + "').disabled")
	require.NoError(v.t, v.Click(v.ctx, selector))
}

func (v visitor) requireState(want string) {
	v.t.Helper()
	var state string
	v.eval("carillon.state()", &state)
	require.Equal(v.t, want, state)
}

// await receives from a channel or fails when ctx ends.
func await[T any](ctx context.Context, t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-ctx.Done():
		t.Fatalf("waiting for a %T: %v", *new(T), ctx.Err())
		panic("unreachable")
	}
}
