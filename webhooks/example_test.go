package webhooks_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"

	"github.com/carillonhq/carillon/webhooks"
)

// A receiver reads the body once, checks the signature over exactly those bytes
// and only then decodes them. It answers 2xx when it has taken the event; an id
// that it has seen before is an event that it has already taken.
func ExampleVerify() {
	key, err := webhooks.ParseSecret("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	if err != nil {
		panic(err)
	}
	receiver := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 256<<10))
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if err := webhooks.Verify([][]byte{key}, r.Header, body, time.Now(), webhooks.Tolerance); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})

	send := func(signed, sent string) {
		now := time.Now()
		signature, err := webhooks.Sign([][]byte{key}, "ntf_0d1kq3w8r000c", now, []byte(signed))
		if err != nil {
			panic(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/hooks", strings.NewReader(sent))
		r.Header.Set(webhooks.HeaderID, "ntf_0d1kq3w8r000c")
		r.Header.Set(webhooks.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
		r.Header.Set(webhooks.HeaderSignature, signature)
		answer := httptest.NewRecorder()
		receiver.ServeHTTP(answer, r)
		fmt.Println(strings.TrimSpace(fmt.Sprint(answer.Code, " ", answer.Body)))
	}
	send(`{"type":"order.shipped"}`, `{"type":"order.shipped"}`)
	send(`{"type":"order.shipped"}`, `{"type":"order.refunded"}`)
	// Output:
	// 204
	// 401 webhooks: no signature matches
}
