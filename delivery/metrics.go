package delivery

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillonhq/carillon/channels"
)

type metrics struct {
	attempts  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	moves     *prometheus.CounterVec
	takeovers prometheus.Counter
	overdue   prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "carillon_attempts_total",
			Help: "Attempts by channel, outcome and code."}, []string{"channel", "outcome", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "carillon_attempt_duration_seconds",
			Help:    "Time from the request to the provider's answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}}, []string{"channel"}),
		moves: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "carillon_deliveries_total",
			Help: "Deliveries that came to a state, by channel, state and reason."}, []string{"channel", "state", "reason"}),
		overdue: prometheus.NewGauge(prometheus.GaugeOpts{Name: "carillon_overdue_sends",
			Help: "Sends that do not end although their time is over, each of which keeps a worker; anything but 0 is a fault."}),
		takeovers: prometheus.NewCounter(prometheus.CounterOpts{Name: "carillon_takeovers_total",
			Help: "Deliveries taken over from a node that stopped with them in hand."}),
	}
	if r != nil {
		r.MustRegister(m.attempts, m.seconds, m.moves, m.takeovers, m.overdue)
	}
	return m
}

func (m *metrics) attempt(k channels.Kind, r channels.Result, took time.Duration) {
	m.attempts.WithLabelValues(k.String(), r.Outcome.String(), r.Code).Inc()
	m.seconds.WithLabelValues(k.String()).Observe(took.Seconds())
}

func (m *metrics) moved(k channels.Kind, t *Transition) {
	m.moves.WithLabelValues(k.String(), t.State.String(), t.Reason.String()).Inc()
}
