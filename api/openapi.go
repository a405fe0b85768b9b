package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/carillonhq/carillon/tenants"
)

const schemaPrefix = "#/components/schemas/"

// Names of the security schemes in the document.
const (
	schemeKey      = "apiKey"
	schemeOperator = "operatorKey"
	schemeUser     = "userToken"
)

const aboutAPI = `One notification API for FCM, APNs, web push and webhooks.

JSON in snake_case; times in RFC 3339, UTC. Unknown members are refused with their path. Every answer that is
not a success is application/problem+json with a stable code. Lists come in pages: send next_cursor as cursor.
What belongs to another tenant is not found.`

// humaConfig switches off what huma brings itself: its pages load scripts from
// elsewhere, and its document is made before the routes are finished.
func (s *Server) humaConfig(version string) huma.Config {
	format := huma.Format{Marshal: encodeForHuma, Unmarshal: decode}
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "Carillon", Version: version, Description: aboutAPI},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry(schemaPrefix, huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					schemeKey:      {Type: "http", Scheme: "bearer", Description: "A tenant's API key, crl_...; its scopes are listed beside each call."},
					schemeOperator: {Type: "http", Scheme: "bearer", Description: "An operator's key, crlop_...; for a tenant's calls with the header " + tenantHeader + "."},
					schemeUser:     {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "A short-lived token that the tenant's backend signs with a user key."},
				},
			},
		},
		Formats:       map[string]huma.Format{jsonType: format, "json": format},
		DefaultFormat: jsonType,
		Transformers:  []huma.Transformer{asProblem},
	}
}

func security(a access) []map[string][]string {
	switch a.kind {
	case byOperator:
		return []map[string][]string{{schemeOperator: {}}}
	case byUser:
		return []map[string][]string{{schemeUser: {}}}
	}
	return []map[string][]string{{schemeKey: {string(a.scope)}}, {schemeOperator: {}}}
}

// headersOf documents headers that are read outside of huma.
func headersOf(r route) []*huma.Param {
	text := &huma.Schema{Type: huma.TypeString}
	var out []*huma.Param
	if r.access.kind == byKey {
		about := "The tenant's name; needed with an operator's key"
		if r.access.installation {
			about = "The tenant's name, with an operator's key; without it the key sees what belongs to no tenant"
		}
		out = append(out, &huma.Param{Name: tenantHeader, In: "header", Schema: text, Description: about})
	}
	if r.idempotent {
		longest := maxIdempotencyKey
		out = append(out, &huma.Param{Name: idempotencyHeader, In: "header", Schema: &huma.Schema{Type: huma.TypeString, MaxLength: &longest},
			Description: "The same key and body within 24 hours get the same answer, and nothing is sent twice. Another body is refused."})
	}
	return out
}

// problemsOf documents what a route may answer beside its success.
func problemsOf(r route) map[string]*huma.Response {
	statuses := []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusNotAcceptable,
		http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable}
	if r.hasBody {
		statuses = append(statuses, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if r.method != http.MethodGet {
		statuses = append(statuses, http.StatusConflict)
	}
	out := map[string]*huma.Response{}
	for _, status := range statuses {
		out[strconv.Itoa(status)] = &huma.Response{Ref: "#/components/responses/" + problemName(status)}
	}
	return out
}

func problemName(status int) string {
	return strings.ReplaceAll(http.StatusText(status), " ", "")
}

// document adds what huma could not see: the body, which it would otherwise read
// and check a second time in its own words, and rendered answers.
func (s *Server) document(r route) {
	doc := s.huma.OpenAPI()
	item := doc.Paths[r.path]
	op := map[string]*huma.Operation{http.MethodGet: item.Get, http.MethodPut: item.Put, http.MethodPost: item.Post,
		http.MethodPatch: item.Patch, http.MethodDelete: item.Delete}[r.method]
	schemas := doc.Components.Schemas
	if t := r.handler.body; t != nil {
		media := &huma.MediaType{Schema: schemas.Schema(t, true, r.id+"Body")}
		if r.example != "" {
			media.Example = json.RawMessage(r.example)
		}
		op.RequestBody = &huma.RequestBody{Required: !r.bodyOptional, Content: map[string]*huma.MediaType{jsonType: media}}
	}
	if t := r.handler.answer; t != nil {
		answer := op.Responses[strconv.Itoa(r.status)]
		answer.Headers["Idempotency-Replayed"].Description = "true: this answer was stored for an earlier request"
		delete(answer.Headers, "Content-Type")
		if !r.idempotent {
			delete(answer.Headers, "Idempotency-Replayed")
		}
		if r.id == batchID {
			answer.Headers["Retry-After"].Description = "Some entries were refused and may be sent again after so many seconds: the latest of their retry_at"
		} else {
			delete(answer.Headers, "Retry-After")
		}
		answer.Content = map[string]*huma.MediaType{jsonType: {Schema: schemas.Schema(t, true, r.id+"Answer")}}
	}
	if types := r.handler.streams; types != nil {
		answer := op.Responses[strconv.Itoa(r.status)]
		answer.Content = map[string]*huma.MediaType{}
		for _, t := range types {
			answer.Content[t] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
		}
		answer.Headers = map[string]*huma.Param{completeHeader: {Schema: &huma.Schema{Type: huma.TypeString},
			Description: "true: the answer is whole. A trailer where it is long"}}
	}
	if r.handler.careful {
		r.preview = reflect.TypeFor[Affected]()
		if r.status == http.StatusNoContent {
			op.Responses[strconv.Itoa(r.status)].Content = nil
		}
	}
	if t := r.preview; t != nil {
		op.Responses["200"] = &huma.Response{Description: "With dry_run: what would be done",
			Content: map[string]*huma.MediaType{jsonType: {Schema: schemas.Schema(t, true, "")}}}
	}
}

// finishSpec completes the document once all routes are in it.
func (s *Server) finishSpec() {
	doc := s.huma.OpenAPI()
	schemas := doc.Components.Schemas
	body := schemas.Schema(reflect.TypeFor[Problem](), true, "")
	doc.Components.Responses = map[string]*huma.Response{}
	for _, code := range codes() {
		status := statusOf(code)
		doc.Components.Responses[problemName(status)] = &huma.Response{Description: http.StatusText(status),
			Content: map[string]*huma.MediaType{problemType: {Schema: body}}}
	}
	all := schemas.Map()
	delete(all, "ErrorModel") // huma's own, never sent
	delete(all, "ErrorDetail")
	delete(all["Problem"].Properties, "retryAfter")
	var known []any
	for _, code := range codes() {
		known = append(known, string(code))
	}
	all["Problem"].Properties["code"].Enum = known
	describeSettings(all)
	doc.Tags = nil
	for _, r := range s.routes() { // in the order of the table of contents
		if !slices.ContainsFunc(doc.Tags, func(t *huma.Tag) bool { return t.Name == r.tag }) {
			doc.Tags = append(doc.Tags, &huma.Tag{Name: r.tag})
		}
	}
	tidy(doc)
}

func (s *Server) renderSpec() ([]byte, error) {
	raw, err := json.Marshal(s.huma.OpenAPI())
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, err
	}
	return append(out.Bytes(), '\n'), nil
}

// describeSettings documents types that belong to package tenants.
func describeSettings(all map[string]*huma.Schema) {
	for _, x := range []struct{ schema, member, text string }{
		{"Settings", "retry", "By channel: replaces its retry policy"},
		{"Settings", "ttl", "By channel: its default time to live, in seconds"},
		{"Settings", "origins", "Pages that may register browsers with users' tokens, such as https://app.example.com"},
		{"RetryPolicy", "preset", "A named schedule: " + strings.Join(tenants.Presets(), ", ") + ". Absent: delays_ms"},
		{"RetryPolicy", "delays_ms", "Milliseconds before the second, third ... attempt; one attempt more than delays"},
		{"RetryPolicy", "jitter", "Share by which each delay varies both ways, 0 to 0.5"},
		{"RetryPolicy", "floor_ms", "Least wait after an error for which the provider names none, in milliseconds"},
	} {
		all[x.schema].Properties[x.member].Description = x.text
	}
}

// tidy corrects what huma assumes: a list of ours is never null, and an answer
// may get more members later while a request may not.
func tidy(doc *huma.OpenAPI) {
	sent := map[string]bool{}
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Put, item.Post, item.Patch} {
			if op != nil && op.RequestBody != nil {
				collect(doc, op.RequestBody.Content[jsonType].Schema, sent)
			}
		}
	}
	for name, schema := range doc.Components.Schemas.Map() {
		each(schema, func(x *huma.Schema) {
			if x.Type == huma.TypeArray {
				x.Nullable = false
			}
		})
		if !sent[name] {
			schema.AdditionalProperties = true
		}
	}
}

// collect finds the schemas that a request consists of.
func collect(doc *huma.OpenAPI, schema *huma.Schema, names map[string]bool) {
	each(schema, func(x *huma.Schema) {
		name, ok := strings.CutPrefix(x.Ref, schemaPrefix)
		if ok && !names[name] {
			names[name] = true
			collect(doc, doc.Components.Schemas.Map()[name], names)
		}
	})
}

// each visits a schema and what is written inside of it.
func each(schema *huma.Schema, visit func(*huma.Schema)) {
	if schema == nil {
		return
	}
	visit(schema)
	each(schema.Items, visit)
	for _, p := range schema.Properties {
		each(p, visit)
	}
	if more, ok := schema.AdditionalProperties.(*huma.Schema); ok {
		each(more, visit)
	}
	for _, list := range [][]*huma.Schema{schema.OneOf, schema.AnyOf, schema.AllOf} {
		slices.Values(list)(func(x *huma.Schema) bool { each(x, visit); return true })
	}
}
