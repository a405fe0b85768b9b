package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// client calls the API of a server, as any program would.
type client struct {
	base   string
	key    string
	tenant string // only with an operator key
	http   *http.Client
}

// clientFlags are what every command has that calls a server.
type clientFlags struct{ url, key, tenant string }

func (f *clientFlags) add(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.url, "url", "", "the server (CARILLON_URL; default http://127.0.0.1:8080)")
	flags.StringVar(&f.key, "key", "", "API key; better in CARILLON_KEY, where other users of the machine cannot see it")
	flags.StringVar(&f.tenant, "tenant", "", "the tenant to act for, with an operator key (CARILLON_TENANT)")
}

func (f *clientFlags) client(c *cli) (*client, error) {
	x := &client{base: cmp.Or(f.url, c.getenv("CARILLON_URL"), "http://127.0.0.1:8080"), key: cmp.Or(f.key, c.getenv("CARILLON_KEY")),
		tenant: cmp.Or(f.tenant, c.getenv("CARILLON_TENANT")), http: &http.Client{Timeout: time.Minute}}
	x.base = strings.TrimSuffix(x.base, "/")
	if x.key == "" {
		return nil, usageError{errors.New("an API key is needed: set CARILLON_KEY or give --key (make one with `carillon key create`)")}
	}
	if u, err := url.Parse(x.base); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, usageError{errors.New("--url must be like https://push.example.com")}
	}
	return x, nil
}

// getenv reads the environment that the program was given.
func (c *cli) getenv(name string) string {
	for _, kv := range c.environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// apiError is an answer that is a problem.
type apiError struct {
	Status    int    `json:"status"`
	Code      string `json:"code"`
	Detail    string `json:"detail"`
	RequestID string `json:"request_id"`
	Errors    []struct {
		Path   string `json:"path"`
		Detail string `json:"detail"`
	} `json:"errors"`
}

func (e *apiError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s)", e.Detail, e.Code)
	for _, f := range e.Errors {
		fmt.Fprintf(&b, "\n  - %s: %s", f.Path, f.Detail)
	}
	return b.String()
}

// StatusCode is that of the answer.
func (e *apiError) StatusCode() int { return e.Status }

// call sends in, unless it is nil, and reads the answer into out, unless it is nil.
func (x *client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	res, err := x.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("the answer broke off: %w", err)
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		return refused(res, b)
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the answer of the server cannot be read: %w", err)
	}
	return nil
}

func (x *client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, x.base+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+x.key)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if x.tenant != "" {
		req.Header.Set("Carillon-Tenant", x.tenant)
	}
	res, err := x.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the server cannot be reached; name it by --url or CARILLON_URL: %w", err)
	}
	return res, nil
}

func refused(res *http.Response, body []byte) *apiError {
	p := &apiError{Status: res.StatusCode}
	if json.Unmarshal(body, p) != nil || p.Detail == "" {
		p.Detail, p.Code = "The server answered "+res.Status+".", "unreadable"
	}
	return p
}

// open is for an answer of any length, whose body the caller reads and closes.
func (x *client) open(ctx context.Context, path string) (*http.Response, error) {
	res, err := x.do(ctx, http.MethodGet, path, nil)
	if err != nil || res.StatusCode < http.StatusMultipleChoices {
		return res, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("the answer broke off: %w", err)
	}
	return nil, refused(res, b)
}

// listAll reads a whole list.
func listAll[T any](ctx context.Context, x *client, path string) (all []T, err error) {
	for cursor := ""; ; {
		var list listAnswer[T]
		if err := x.call(ctx, "GET", path+"?limit=200&cursor="+cursor, nil, &list); err != nil {
			return nil, err
		}
		all = append(all, list.Data...)
		if cursor = list.NextCursor; cursor == "" {
			return all, nil
		}
	}
}

// The parts of the API's answers that the commands show.
type (
	deliveryAnswer struct {
		ID           string         `json:"id"`
		Notification string         `json:"notification"`
		Target       string         `json:"target"`
		Channel      string         `json:"channel"`
		User         string         `json:"user"`
		State        string         `json:"state"`
		Reason       string         `json:"reason"`
		UpdatedAt    time.Time      `json:"updated_at"`
		Last         *attemptAnswer `json:"last"`
	}
	attemptAnswer struct {
		Number     int    `json:"number"`
		DurationMS int64  `json:"duration_ms"`
		Outcome    string `json:"outcome"`
		Code       string `json:"code"`
		Detail     string `json:"detail"`
		ProviderID string `json:"provider_id"`
	}
	listAnswer[T any] struct {
		Data       []T    `json:"data"`
		NextCursor string `json:"next_cursor"`
	}
	acceptedAnswer struct {
		ID         string `json:"id"`
		Scheduled  bool   `json:"scheduled"`
		FansOut    bool   `json:"fans_out"`
		Deliveries []struct {
			ID      string `json:"id"`
			Channel string `json:"channel"`
			Target  string `json:"target"`
			User    string `json:"user"`
		} `json:"deliveries"`
		Skips []skipAnswer `json:"skips"`
	}
	skipAnswer struct {
		User    string `json:"user"`
		Target  string `json:"target"`
		Channel string `json:"channel"`
		Reason  string `json:"reason"`
	}
	holdAnswer struct {
		ID      string    `json:"id"`
		Scope   string    `json:"scope"`
		Subject string    `json:"subject"`
		At      string    `json:"qualifier"`
		Reason  string    `json:"reason"`
		Detail  string    `json:"detail"`
		Since   time.Time `json:"since"`
		Until   time.Time `json:"until"`
		Held    int       `json:"held"`
		More    bool      `json:"lower_bound"`
		Ending  string    `json:"ending"`
		Release string    `json:"release"`
	}
)

// final tells whether a delivery has come to its end.
func (d deliveryAnswer) final() bool {
	return d.State == "sent" || d.State == "dropped" || d.State == "dead"
}
