package fcm

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/carillonhq/carillon/channels"
)

func BenchmarkPrepare(b *testing.B) {
	c := New(Options{})
	m := channels.Message{Notification: "ntf_0d1kq3w8r000c", CreatedAt: time.Now(), Title: "Your order has shipped", Body: "It arrives tomorrow between nine and eleven.",
		Data: json.RawMessage(`{"order":7}`), Priority: channels.High}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Prepare(m); err != nil {
			b.Fatal(err)
		}
	}
}
