package api

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/carillonhq/carillon/problem"
)

// bodyTimeout is for the body to come.
const bodyTimeout = 10 * time.Second

// readBody reads at most the limit. What is announced as longer is refused
// unread.
func readBody(w http.ResponseWriter, req *http.Request, most int64) ([]byte, error) {
	kind := req.Header.Get("Content-Type")
	if kind != "application/json" { // spares the common case the parser
		media, params, err := mime.ParseMediaType(kind)
		charset := params["charset"]
		if err != nil || media != "application/json" || (charset != "" && !strings.EqualFold(charset, "utf-8")) {
			return nil, problem.New(problem.UnsupportedMedia, "Send the body as Content-Type: application/json, in UTF-8.")
		}
	}
	if enc := req.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return nil, problem.New(problem.UnsupportedMedia, "Send the body without a Content-Encoding.")
	}
	if req.ContentLength > most {
		return nil, tooLarge(most)
	}
	// Sets no deadline where the writer knows none, as in tests. net/http takes it
	// back when the body has come.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := readAll(req, w, most)
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge(most)
	case err != nil:
		return nil, problem.New(problem.Malformed, "The body ended before all of it had come.")
	}
	return body, nil
}

// ignoreBody keeps net/http from waiting for a body that nobody reads: before it
// sends an answer it reads what the client has announced, for as long as a request
// may take. What has come with the headers is still read, and the connection is kept
// if that was all.
func ignoreBody(w http.ResponseWriter, req *http.Request) {
	if req.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now())
	}
}

func tooLarge(most int64) error {
	return problem.New(problem.TooLarge, "The body is larger than the %d bytes that this server takes.", most)
}

// readAll reads into one buffer of the announced size, where there is one: the
// HTTP server then ends the body there.
func readAll(req *http.Request, w http.ResponseWriter, most int64) ([]byte, error) {
	if req.ContentLength < 0 {
		return io.ReadAll(http.MaxBytesReader(w, req.Body, most))
	}
	body := make([]byte, req.ContentLength)
	_, err := io.ReadFull(req.Body, body)
	return body, err
}
