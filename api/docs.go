package api

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.css
var docsStyle []byte

//go:embed docs.html
var docsHTML string

// docsPage renders the OpenAPI document as one page without scripts, so that it
// works offline and under a policy that allows nothing.
func docsPage(doc *huma.OpenAPI) ([]byte, error) {
	t, err := template.New("docs").Parse(docsHTML)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, docsView(doc))
	return out.Bytes(), err
}

type docsData struct {
	Title, Version string
	About          []string
	Tags           []docsTag
	Schemas        []docsSchema
}

type docsTag struct {
	Name, Anchor string
	Operations   []docsOperation
}

type docsOperation struct {
	ID, Method, Path, Summary, About string
	Who                              []string
	Params                           []docsMember
	Body                             docsType
	Example                          string
	Answers                          []docsAnswer
	Problems                         []string
}

type docsAnswer struct {
	Status string
	About  string
	Type   docsType
}

type docsSchema struct {
	Name    string
	Members []docsMember
}

type docsMember struct {
	Name, In, About string
	Required        bool
	Type            docsType
}

// docsType is the name of a type, with a link where it is described on the page.
type docsType struct{ Before, Link, After string }

func docsView(doc *huma.OpenAPI) docsData {
	view := docsData{Title: doc.Info.Title, Version: doc.Info.Version, About: strings.Split(doc.Info.Description, "\n\n")}
	tags := map[string]*docsTag{}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		item := doc.Paths[path]
		for _, op := range []*huma.Operation{item.Post, item.Put, item.Get, item.Patch, item.Delete} {
			if op == nil {
				continue
			}
			name := op.Tags[0]
			if tags[name] == nil {
				tags[name] = &docsTag{Name: name, Anchor: strings.ReplaceAll(strings.ToLower(name), " ", "-")}
			}
			tags[name].Operations = append(tags[name].Operations, showOperation(op))
		}
	}
	for _, t := range doc.Tags {
		if tag := tags[t.Name]; tag != nil {
			view.Tags = append(view.Tags, *tag)
		}
	}
	schemas := doc.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(schemas)) {
		view.Schemas = append(view.Schemas, docsSchema{Name: name, Members: members(schemas[name])})
	}
	return view
}

func showOperation(op *huma.Operation) docsOperation {
	out := docsOperation{ID: op.OperationID, Method: op.Method, Path: op.Path, Summary: op.Summary, About: op.Description}
	for _, alternative := range op.Security {
		for scheme, scopes := range alternative {
			out.Who = append(out.Who, strings.TrimSpace(scheme+" "+strings.Join(scopes, " ")))
		}
	}
	for _, p := range op.Parameters {
		out.Params = append(out.Params, docsMember{Name: p.Name, In: p.In, About: about(p.Description, p.Schema), Required: p.Required, Type: typeOf(p.Schema)})
	}
	if op.RequestBody != nil {
		media := op.RequestBody.Content[jsonType]
		out.Body = typeOf(media.Schema)
		if raw, ok := media.Example.(json.RawMessage); ok {
			var pretty bytes.Buffer
			if json.Indent(&pretty, raw, "", "  ") == nil {
				out.Example = pretty.String()
			}
		}
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		r := op.Responses[status]
		if r.Ref != "" {
			out.Problems = append(out.Problems, status)
			continue
		}
		a := docsAnswer{Status: status, About: r.Description}
		if media := r.Content[jsonType]; media != nil {
			a.Type = typeOf(media.Schema)
		}
		out.Answers = append(out.Answers, a)
	}
	return out
}

func members(schema *huma.Schema) []docsMember {
	out := make([]docsMember, 0, len(schema.Properties))
	for name, p := range schema.Properties {
		out = append(out, docsMember{Name: name, About: about(p.Description, p), Required: slices.Contains(schema.Required, name), Type: typeOf(p)})
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Required != out[j].Required {
			return out[i].Required
		}
		return out[i].Name < out[j].Name
	})
	return out
}

func typeOf(s *huma.Schema) docsType {
	switch {
	case s == nil:
		return docsType{}
	case s.Ref != "":
		return docsType{Link: strings.TrimPrefix(s.Ref, schemaPrefix)}
	case s.Type == huma.TypeArray:
		t := typeOf(s.Items)
		t.Before = "list of " + t.Before
		return t
	case s.Type == "":
		return docsType{Before: "any"}
	}
	if more, ok := s.AdditionalProperties.(*huma.Schema); ok {
		t := typeOf(more)
		t.Before = "map of " + t.Before
		return t
	}
	if s.Format == "date-time" {
		return docsType{Before: "time"}
	}
	return docsType{Before: s.Type}
}

// about puts the limits of a member behind its description.
func about(text string, s *huma.Schema) string {
	parts := []string{}
	if text != "" {
		parts = append(parts, text)
	}
	enum := s.Enum
	if s.Items != nil && len(enum) == 0 {
		enum = s.Items.Enum
	}
	if len(enum) > 0 {
		names := make([]string, len(enum))
		for i, e := range enum {
			names[i] = fmt.Sprint(e)
		}
		parts = append(parts, "One of: "+strings.Join(names, ", "))
	}
	if s.Maximum != nil {
		parts = append(parts, fmt.Sprintf("At most %v", *s.Maximum))
	}
	if s.MaxLength != nil {
		parts = append(parts, fmt.Sprintf("At most %d characters", *s.MaxLength))
	}
	if s.Default != nil {
		parts = append(parts, fmt.Sprintf("Default: %v", s.Default))
	}
	for i, p := range parts {
		parts[i] = strings.TrimSuffix(p, ".")
	}
	return strings.Join(parts, ". ")
}
