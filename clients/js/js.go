// Package js holds Carillon's browser client, its service worker and the demo
// page, and serves them. There is no build step: what is embedded is what a
// browser gets.
package js

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"time"
)

// Where the handlers expect to be mounted. They look at the whole path of a
// request, so that no http.StripPrefix is wanted.
const (
	Prefix     = "/sdk/v1/" // Handler
	DemoPrefix = "/demo/"   // Demo
)

//go:embed carillon.js sw.js demo/index.html demo/demo.js demo/demo.css demo/icon.svg
var files embed.FS

// asset is a file with the headers that it always has.
type asset struct {
	content []byte
	header  http.Header
}

// Handler serves carillon.js and sw.js under Prefix.
//
// carillon.js may be imported by pages of any origin and is cached for five
// minutes. sw.js is revalidated each time, so that a mended worker reaches
// browsers with their next check, and may claim any scope of this origin.
func Handler() http.Handler {
	const script = "text/javascript; charset=utf-8"
	client := load("carillon.js", script, "public, max-age=300")
	client.header.Set("Access-Control-Allow-Origin", "*")
	worker := load("sw.js", script, "no-cache")
	worker.header.Set("Service-Worker-Allowed", "/")
	for _, a := range []asset{client, worker} {
		// importScripts and import work from pages under COEP too.
		a.header.Set("Cross-Origin-Resource-Policy", "cross-origin")
	}
	return serve(map[string]asset{Prefix + "carillon.js": client, Prefix + "sw.js": worker})
}

// Demo serves the demo page under DemoPrefix. The page uses Handler's files at
// Prefix of the same origin, and asks its server for
//
//	POST /demo/token?user=alice   -> {"token", "server", "app"}; server "" or left out: this origin
//	POST /demo/send               {"user", "title", "body", "url"} -> {"id"}
func Demo() http.Handler {
	page := load("demo/index.html", "text/html; charset=utf-8", "no-cache")
	page.header.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
		"worker-src 'self'; connect-src *; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	page.header.Set("Referrer-Policy", "no-referrer")
	assets := serve(map[string]asset{
		DemoPrefix:              page,
		DemoPrefix + "demo.js":  load("demo/demo.js", "text/javascript; charset=utf-8", "no-cache"),
		DemoPrefix + "demo.css": load("demo/demo.css", "text/css; charset=utf-8", "no-cache"),
		DemoPrefix + "icon.svg": load("demo/icon.svg", "image/svg+xml", "no-cache"),
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path+"/" == DemoPrefix {
			http.Redirect(w, r, DemoPrefix, http.StatusPermanentRedirect)
			return
		}
		assets.ServeHTTP(w, r)
	})
}

// load reads an embedded file. That it exists is known when the program is
// compiled, so a failure is a mistake in this file.
func load(name, contentType, cache string) asset {
	content, err := files.ReadFile(name)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(content)
	h := http.Header{}
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", cache)
	h.Set("ETag", `"`+hex.EncodeToString(sum[:12])+`"`)
	h.Set("X-Content-Type-Options", "nosniff")
	return asset{content: content, header: h}
}

// serve answers GET and HEAD, conditional ones too, for the paths in assets.
func serve(assets map[string]asset) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := assets[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD are allowed here", http.StatusMethodNotAllowed)
			return
		}
		for name, values := range a.header {
			w.Header()[name] = append([]string(nil), values...)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.content))
	})
}
