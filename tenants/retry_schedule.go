package tenants

import (
	"slices"
	"time"

	"github.com/carillonhq/carillon/channels"
)

// Schedule is a retry policy with every default filled in.
type Schedule struct {
	// Delays before the second, third ... attempt.
	Delays []time.Duration
	// Jitter is the share by which each delay varies both ways.
	Jitter float64
	// Floor replaces the least waits that provider errors impose; nil keeps them.
	Floor *time.Duration
}

// PresetDefault is the preset that is used where nothing is chosen.
const PresetDefault = "default"

const defaultJitter = 0.2

// preset is a named list of delays, where a channel has none of its own.
type preset struct {
	name     string
	delays   []time.Duration
	channels map[channels.Kind][]time.Duration
}

func presets() []preset {
	const s, m, h = time.Second, time.Minute, time.Hour
	// 7 attempts; the last about 32 h 36 min after the first.
	sixStep := []time.Duration{m, 5 * m, 30 * m, 2 * h, 6 * h, 24 * h}
	return []preset{
		{name: PresetDefault, delays: sixStep, channels: map[channels.Kind][]time.Duration{
			// Google asks for at least 10 s after an error of the server, and to
			// give up after 60 min.
			channels.FCM:     {10 * s, 30 * s, m, 2 * m, 5 * m, 10 * m, 20 * m},
			channels.APNs:    {10 * s, m, 5 * m, 15 * m, 30 * m},
			channels.WebPush: {10 * s, m, 5 * m, 30 * m, 2 * h},
		}},
		{name: "six-step", delays: sixStep},
		// The example of the Standard Webhooks specification: 10 attempts over 75 h 35 min.
		{name: "standard-webhooks", delays: []time.Duration{5 * s, 5 * m, 30 * m, 2 * h, 5 * h, 10 * h, 14 * h, 20 * h, 24 * h}},
		// For content that is worthless after some minutes: 6 attempts within 13 min.
		{name: "fast", delays: []time.Duration{s, 5 * s, 30 * s, 2 * m, 10 * m}},
	}
}

// Presets lists the names that RetryPolicy.Preset may have.
func Presets() []string {
	var names []string
	for _, p := range presets() {
		names = append(names, p.name)
	}
	return names
}

// Schedule is the tenant's retry policy for a channel. The settings must have
// passed Check.
func (s Settings) Schedule(kind channels.Kind) Schedule {
	p := s.Retry[kind]
	out := Schedule{Jitter: defaultJitter}
	if p.Jitter != nil {
		out.Jitter = *p.Jitter
	}
	if p.Floor != nil {
		floor := time.Duration(*p.Floor) * time.Millisecond
		out.Floor = &floor
	}
	for _, ms := range p.Delays {
		out.Delays = append(out.Delays, time.Duration(ms)*time.Millisecond)
	}
	if out.Delays == nil {
		out.Delays = presetDelays(p.Preset, kind)
	}
	return out
}

func presetDelays(name string, kind channels.Kind) []time.Duration {
	all := presets()
	i := slices.IndexFunc(all, func(p preset) bool { return p.name == name })
	p := all[max(i, 0)] // "" is the first, the default
	if own, ok := p.channels[kind]; ok {
		return own
	}
	return p.delays
}
