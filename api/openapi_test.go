package api

import (
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/openapi.json")

const committedSpec = "../docs/openapi.json"

// TestOpenAPIIsCommitted fails when the committed document is not what the code
// says. go test ./api -run TestOpenAPIIsCommitted -update writes it.
func TestOpenAPIIsCommitted(t *testing.T) {
	t.Parallel()
	spec, err := setup(t, func(o *Options) { o.Version = "1" }).OpenAPI()
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile(committedSpec, spec, 0o644))
	}
	have, err := os.ReadFile(committedSpec)
	require.NoError(t, err)
	require.Equal(t, string(have), string(spec), "run: go test ./api -run TestOpenAPIIsCommitted -update")
}

type specOperation struct {
	OperationID string `json:"operationId"`
	Summary     string
	Tags        []string
	Security    []map[string][]string
	RequestBody *struct {
		Content map[string]struct {
			Schema  map[string]any
			Example json.RawMessage
		}
	}
	Responses map[string]struct {
		Ref     string `json:"$ref"`
		Content map[string]struct{ Schema map[string]any }
	}
}

type specDocument struct {
	OpenAPI    string `json:"openapi"`
	Paths      map[string]map[string]specOperation
	Components struct {
		Schemas   map[string]map[string]any
		Responses map[string]any
	}
}

func served(t *testing.T, w *world) (specDocument, string) {
	t.Helper()
	rec := w.do(t, request{method: http.MethodGet, path: "/openapi.json"})
	require.Equal(t, http.StatusOK, rec.Code)
	require.Equal(t, "application/openapi+json", rec.Header().Get("Content-Type"))
	var doc specDocument
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &doc))
	return doc, rec.Body.String()
}

func TestOpenAPISaysWhatTheRoutesSay(t *testing.T) {
	t.Parallel()
	w := setup(t)
	doc, _ := served(t, w)
	require.Equal(t, "3.1.0", doc.OpenAPI)
	seen := map[string]bool{}
	for _, r := range w.routes() {
		op, ok := doc.Paths[r.path][strings.ToLower(r.method)]
		require.True(t, ok, "%s %s is missing", r.method, r.path)
		require.False(t, seen[op.OperationID], op.OperationID)
		seen[op.OperationID] = true
		require.NotEmpty(t, op.Summary, r.id)
		require.Len(t, op.Tags, 1, r.id)
		require.NotEmpty(t, op.Security, r.id)
		require.Equal(t, bodies[r.id] != "", op.RequestBody != nil, r.id)
		for _, status := range []string{"401", "403", "404", "406", "422", "429", "500", "503"} {
			require.NotEmpty(t, op.Responses[status].Ref, "%s %s", r.id, status)
		}
		if op.RequestBody != nil {
			require.NotEmpty(t, op.RequestBody.Content["application/json"].Schema, r.id)
			require.NotEmpty(t, op.Responses["413"].Ref, r.id)
		}
	}
	total := 0
	for _, item := range doc.Paths {
		total += len(item)
	}
	require.Len(t, seen, total, "the document has an operation that is no route")
}

func TestOpenAPIHasNoDanglingReference(t *testing.T) {
	t.Parallel()
	doc, text := served(t, setup(t))
	for _, part := range strings.Split(text, `"$ref": "`)[1:] {
		ref, _, _ := strings.Cut(part, `"`)
		name := ref[strings.LastIndex(ref, "/")+1:]
		if strings.HasPrefix(ref, schemaPrefix) {
			require.Contains(t, doc.Components.Schemas, name)
		} else {
			require.Contains(t, doc.Components.Responses, name)
		}
	}
	require.NotContains(t, text, "ErrorModel")
	require.NotContains(t, text, "$schema")
	require.Equal(t, false, doc.Components.Schemas["NotificationRequest"]["additionalProperties"], "requests refuse unknown members")
	require.Equal(t, true, doc.Components.Schemas["Delivery"]["additionalProperties"], "answers may grow")
}

// TestExamplesAreAccepted sends every example of the document.
func TestExamplesAreAccepted(t *testing.T) {
	t.Parallel()
	w := setup(t)
	doc, _ := served(t, w)
	sent := 0
	for _, r := range w.routes() {
		if r.example == "" {
			continue
		}
		require.JSONEq(t, r.example, string(doc.Paths[r.path][strings.ToLower(r.method)].RequestBody.Content["application/json"].Example), r.id)
		req := sampleRequest(r)
		req.key, req.body = rightKey(r.access), r.example
		rec := w.do(t, req)
		require.Less(t, rec.Code, 300, "%s: %s", r.id, rec.Body.String())
		sent++
	}
	require.Greater(t, sent, 5)
}

func TestDocsPageWorksOffline(t *testing.T) {
	t.Parallel()
	w := setup(t)
	rec := w.do(t, request{method: http.MethodGet, path: "/docs"})
	require.Equal(t, http.StatusOK, rec.Code)
	require.Equal(t, "text/html; charset=utf-8", rec.Header().Get("Content-Type"))
	require.Contains(t, rec.Header().Get("Content-Security-Policy"), "default-src 'none'")
	require.Equal(t, "DENY", rec.Header().Get("X-Frame-Options"))
	page := rec.Body.String()
	for _, r := range w.routes() {
		require.Contains(t, page, `<article id="`+r.id+`">`)
	}
	require.NotContains(t, page, "<script")
	require.NotContains(t, page, `src="http`)
	require.NotContains(t, page, `href="http`)
	rec = w.do(t, request{method: http.MethodGet, path: "/docs/style.css"})
	require.Equal(t, "text/css; charset=utf-8", rec.Header().Get("Content-Type"))
	require.NotContains(t, rec.Body.String(), "url(")
}
