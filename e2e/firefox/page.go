package firefox

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Navigate loads a page in the tab and waits until it has loaded.
func (b *Browser) Navigate(ctx context.Context, url string) error {
	return b.bidi.call(ctx, "browsingContext.navigate", map[string]any{"context": b.tab, "url": url, "wait": "complete"}, nil)
}

// Script is JavaScript to evaluate in a page.
type Script struct {
	// Expr is an expression. A promise is awaited. What it gives must be JSON.
	Expr string
	// Gesture makes it run as if the user had just clicked.
	Gesture bool
}

// Evaluate runs a script in the tab and reads its value, as JSON, into result
// unless that is nil. An exception or a rejection becomes an error.
func (b *Browser) Evaluate(ctx context.Context, s Script, result any) error {
	text, err := b.evaluate(ctx, b.tab, "(async () => JSON.stringify((await ("+s.Expr+")) ?? null))()", s.Gesture)
	if err != nil || result == nil {
		return err
	}
	if err := json.Unmarshal([]byte(text), result); err != nil {
		return fmt.Errorf("evaluate: read %q: %w", text, err)
	}
	return nil
}

// evaluate runs an expression in the named context; its value is a string.
func (b *Browser) evaluate(ctx context.Context, window, expression string, gesture bool) (string, error) {
	var out struct {
		Type   string `json:"type"` // "success" or "exception"
		Result struct {
			Value any `json:"value"`
		} `json:"result"`
		ExceptionDetails struct {
			Text string `json:"text"`
		} `json:"exceptionDetails"`
	}
	err := b.bidi.call(ctx, "script.evaluate", map[string]any{
		"expression": expression, "target": map[string]any{"context": window},
		"awaitPromise": true, "userActivation": gesture,
	}, &out)
	if err != nil {
		return "", err
	}
	if out.Type != "success" {
		return "", fmt.Errorf("evaluate: %s", out.ExceptionDetails.Text)
	}
	text, _ := out.Result.Value.(string)
	return text, nil
}

// Click clicks the first element that the CSS selector finds, as a user would.
func (b *Browser) Click(ctx context.Context, selector string) error {
	var found bool
	quoted, err := json.Marshal(selector)
	if err != nil {
		return err
	}
	expr := "(e => { if (!e || e.disabled) return false; e.click(); return true; })(document.querySelector(" + string(quoted) + "))"
	if err := b.Evaluate(ctx, Script{Expr: expr, Gesture: true}, &found); err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("click: no enabled element %s", selector)
	}
	return nil
}

// Resize gives the page a size in CSS pixels.
func (b *Browser) Resize(ctx context.Context, width, height int) error {
	return b.bidi.call(ctx, "browsingContext.setViewport", map[string]any{
		"context": b.tab, "viewport": map[string]int{"width": width, "height": height},
	}, nil)
}

// Screenshot writes a PNG of the whole page, also of what is out of sight.
func (b *Browser) Screenshot(ctx context.Context, path string) error {
	var out struct {
		Data string `json:"data"`
	}
	err := b.bidi.call(ctx, "browsingContext.captureScreenshot", map[string]any{"context": b.tab, "origin": "document"}, &out)
	if err != nil {
		return err
	}
	png, err := base64.StdEncoding.DecodeString(out.Data)
	if err != nil {
		return fmt.Errorf("screenshot: %w", err)
	}
	return os.WriteFile(path, png, 0o600)
}

// ErrNoAlert says that no notification with the title is on the screen.
var ErrNoAlert = errors.New("no such notification is on the screen")

// ClickNotification clicks the notification with the title, as it is drawn on
// the screen, so that the worker's notificationclick handler runs.
// A notification may be drawn a moment after showNotification has resolved:
// then it is ErrNoAlert, and worth trying again.
func (b *Browser) ClickNotification(ctx context.Context, title string) error {
	windows, err := b.contexts(ctx, map[string]any{"moz:scope": "chrome"})
	if err != nil {
		return err
	}
	quoted, err := json.Marshal(title)
	if err != nil {
		return err
	}
	click := `(() => {
		if (document.getElementById("alertTitleLabel")?.getAttribute("value") !== ` + string(quoted) + ` &&
			document.getElementById("alertTitleLabel")?.textContent !== ` + string(quoted) + `) return "no";
		document.getElementById("alertBox").click();
		return "clicked";
	})()`
	for _, w := range windows {
		if !strings.HasSuffix(w.URL, "/alert.xhtml") {
			continue
		}
		did, err := b.evaluate(ctx, w.Context, click, false)
		if err != nil {
			return err
		}
		if did == "clicked" {
			return nil
		}
	}
	return fmt.Errorf("%w: %q", ErrNoAlert, title)
}

// window is a tab or a window of the browser's own.
type window struct {
	Context string `json:"context"`
	URL     string `json:"url"`
}

func (b *Browser) contexts(ctx context.Context, query map[string]any) ([]window, error) {
	var tree struct {
		Contexts []window `json:"contexts"`
	}
	err := b.bidi.call(ctx, "browsingContext.getTree", query, &tree)
	return tree.Contexts, err
}
