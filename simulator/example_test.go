package simulator_test

import (
	"bytes"
	"fmt"
	"net/http"

	"github.com/carillonhq/carillon/simulator"
)

// A receiver that fails twice and then takes the webhook.
func Example() {
	s, err := simulator.Start(simulator.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	name := simulator.Token(simulator.Webhook, simulator.Fault{Status: 503, Times: 2}, 1)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 3 {
		resp, err := client.Post(s.Webhook().URL(name), "application/json", bytes.NewReader([]byte(`{}`)))
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
	}
	fmt.Println(name, s.Report().Channels[simulator.Webhook].Answers)
	// Output: sim-503x2-n1 map[204:1 503:2]
}
