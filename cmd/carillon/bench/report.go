package bench

import (
	"fmt"
	"time"
)

// Table is the results as a table.
func Table(results []Result) (head []string, rows [][]string) {
	perSecond := func(n int, d time.Duration) string { return fmt.Sprintf("%.0f", float64(n)/d.Seconds()) }
	ms := func(v float64) string { return fmt.Sprintf("%.1f", v) }
	for _, r := range results {
		rows = append(rows, []string{r.Channel, perSecond(r.Accepted, r.Posting), perSecond(r.Delivered, r.Posting+r.Draining), fmt.Sprint(r.Refused),
			fmt.Sprintf("%d", r.CPU.Microseconds()/int64(max(r.Delivered, 1))),
			ms(r.API.P50), ms(r.API.P99), ms(r.EndToEnd.P50), ms(r.EndToEnd.P99)})
	}
	return []string{"CHANNEL", "ACCEPTED/S", "DELIVERED/S", "REFUSED", "SERVER CPU US", "POST P50 MS", "P99", "POST TO PROVIDER P50 MS", "P99"}, rows
}
