package js_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/clients/js"
)

// serve starts a server as a program would: both handlers on one mux.
func serve(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(js.Prefix, js.Handler())
	mux.Handle(js.DemoPrefix, js.Demo())
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

func do(t *testing.T, method, url string, header map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	for name, value := range header {
		req.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(body)
}

func TestFiles(t *testing.T) {
	t.Parallel()
	base := serve(t)
	for _, c := range []struct {
		path, contentType, cache, contains string
		header                             map[string]string
	}{
		{"/sdk/v1/carillon.js", "text/javascript; charset=utf-8", "public, max-age=300", "export class Carillon",
			map[string]string{"Access-Control-Allow-Origin": "*", "Service-Worker-Allowed": "", "Cross-Origin-Resource-Policy": "cross-origin"}},
		{"/sdk/v1/sw.js", "text/javascript; charset=utf-8", "no-cache", "showNotification",
			map[string]string{"Access-Control-Allow-Origin": "", "Service-Worker-Allowed": "/", "Cross-Origin-Resource-Policy": "cross-origin"}},
		{"/demo/", "text/html; charset=utf-8", "no-cache", "<h1>Carillon demo</h1>", nil},
		{"/demo/demo.js", "text/javascript; charset=utf-8", "no-cache", "new Carillon", nil},
		{"/demo/demo.css", "text/css; charset=utf-8", "no-cache", "color-scheme", nil},
		{"/demo/icon.svg", "image/svg+xml", "no-cache", "<svg", nil},
	} {
		t.Run(c.path, func(t *testing.T) {
			t.Parallel()
			res, body := do(t, http.MethodGet, base+c.path, nil)
			require.Equal(t, http.StatusOK, res.StatusCode)
			require.Equal(t, c.contentType, res.Header.Get("Content-Type"))
			require.Equal(t, c.cache, res.Header.Get("Cache-Control"))
			require.Equal(t, "nosniff", res.Header.Get("X-Content-Type-Options"))
			require.Contains(t, body, c.contains)
			for name, value := range c.header {
				require.Equal(t, value, res.Header.Get(name), name)
			}

			head, none := do(t, http.MethodHead, base+c.path, nil)
			require.Equal(t, http.StatusOK, head.StatusCode)
			require.Empty(t, none)
			require.EqualValues(t, len(body), head.ContentLength)

			etag := res.Header.Get("ETag")
			require.NotEmpty(t, etag)
			again, none := do(t, http.MethodGet, base+c.path, map[string]string{"If-None-Match": etag})
			require.Equal(t, http.StatusNotModified, again.StatusCode)
			require.Empty(t, none)

			post, _ := do(t, http.MethodPost, base+c.path, nil)
			require.Equal(t, http.StatusMethodNotAllowed, post.StatusCode)
			require.Equal(t, "GET, HEAD", post.Header.Get("Allow"))
		})
	}
}

func TestUnknownPaths(t *testing.T) {
	t.Parallel()
	base := serve(t)
	for _, path := range []string{"/sdk/v1/", "/sdk/v1/js.go", "/sdk/v1/demo/demo.js", "/sdk/v1/package.json", "/demo/sw.js", "/demo/index.html"} {
		res, _ := do(t, http.MethodGet, base+path, nil)
		require.Equal(t, http.StatusNotFound, res.StatusCode, path)
	}
}

func TestDemoWithoutSlash(t *testing.T) {
	t.Parallel()
	rec := httptest.NewRecorder()
	js.Demo().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/demo", nil))
	require.Equal(t, http.StatusPermanentRedirect, rec.Code)
	require.Equal(t, "/demo/", rec.Header().Get("Location"))
}

// The page's policy forbids inline script and style, so there may be none.
func TestDemoObeysItsPolicy(t *testing.T) {
	t.Parallel()
	res, page := do(t, http.MethodGet, serve(t)+"/demo/", nil)
	policy := res.Header.Get("Content-Security-Policy")
	require.Contains(t, policy, "default-src 'none'")
	require.Contains(t, policy, "script-src 'self'")
	require.NotContains(t, policy, "unsafe")
	for _, inline := range []string{"<style", " style=", "onclick=", "javascript:", "http://", "https://"} {
		require.NotContains(t, page, inline)
	}
	require.Equal(t, strings.Count(page, "<script"), strings.Count(page, `<script type="module" src=`))
}

// TestJavaScript runs the tests in test/ with Node's own test runner.
func TestJavaScript(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		const missing = "node is missing: THE TESTS OF carillon.js AND sw.js DID NOT RUN"
		if strings.Contains(os.Getenv("CARILLON_REQUIRE"), "node") {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, node, "--test", "--test-reporter=tap", "test/carillon.test.js", "test/sw.test.js").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "# fail 0")
	require.NotContains(t, string(out), "# pass 0")
}
