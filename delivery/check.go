package delivery

import (
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/text"
	"github.com/carillonhq/carillon/webhooks"
)

// Limits of single members, in bytes unless said otherwise.
const (
	maxCollapseKey = 64
	maxURL         = 2048
	maxBadge       = 1_000_000 // a number
	maxPastSendAt  = time.Minute
)

// Check finds everything that is wrong with a request by itself, at once.
func (r *Request) Check(now time.Time) error {
	var f problem.Fields
	r.checkTo(&f)
	r.checkContent(&f)
	r.checkTiming(&f, now)
	switch r.Priority {
	case "", channels.High, channels.Normal, channels.Low:
	default:
		f.Add("priority", "must be high, normal or low")
	}
	switch r.OnAmbiguous {
	case "", OnAmbiguousRetry, OnAmbiguousStop:
	default:
		f.Add("on_ambiguous", "must be retry or stop")
	}
	return f.Err()
}

func (r *Request) checkTo(f *problem.Fields) {
	for i, u := range r.To.Users {
		if err := text.CheckUser(u); err != nil {
			f.Add("to.users["+strconv.Itoa(i)+"]", "%s", err)
		}
	}
	for i, k := range r.Channels {
		if slices.Contains(r.Channels[:i], k) {
			f.Add("channels["+strconv.Itoa(i)+"]", "%s is named twice; name each channel once", k)
		}
	}
	if n := len(r.To.Users) + len(r.To.Devices) + len(r.To.Endpoints); n > MaxTargets {
		f.Add("to", "names %d targets, the limit is %d; send several notifications", n, MaxTargets)
	}
	webhook := len(r.Channels) == 0 || slices.Contains(r.Channels, channels.Webhook)
	switch {
	case r.To.Empty() && r.Type == "":
		f.Add("to", "name at least one user, device or endpoint, or give a type to reach the endpoints that subscribe to it")
	case r.To.Empty() && !webhook:
		f.Add("channels", "without to a notification reaches webhook subscribers only; add webhook or name targets")
	case len(r.To.Endpoints) > 0 && !webhook:
		f.Add("channels", "to.endpoints are named, so channels must include webhook")
	}
	if r.Type != "" {
		if err := webhooks.CheckType(r.Type); err != nil {
			f.Merge("type", err)
		}
	}
}

// checkActivity: an activity id that nothing goes by would mislead.
func (r *Request) checkActivity(purposes map[channels.Kind]channels.Purpose) error {
	switch {
	case r.To.ActivityID == "":
		return nil
	case len(r.To.Users) == 0:
		return problem.AtField("to.activity_id", "selects among the tokens of to.users; name users, or leave it out")
	case purposes[channels.APNs] != channels.Activity:
		return problem.AtField("to.activity_id", "is for updates of a Live Activity; set overrides.apns.push_type to liveactivity, with an event other than start")
	}
	if err := text.Check(r.To.ActivityID, 1, devices.MaxActivityID); err != nil {
		return problem.AtField("to.activity_id", "%s", err)
	}
	return nil
}

func (r *Request) checkContent(f *problem.Fields) {
	shown := r.Title != "" || r.Body != ""
	switch {
	case r.Silent && shown:
		f.Add("silent", "a silent notification shows nothing; leave out title and body, or silent")
	case !shown && !r.Silent && len(r.Data) == 0 && r.Type == "" && len(r.Overrides) == 0:
		f.Add("title", "there is nothing to deliver; give a title, a body, data or silent")
	}
	checkURL(f, "image", r.Image, true)
	checkURL(f, "url", r.URL, false)
	if r.Badge != nil && (*r.Badge < 0 || *r.Badge > maxBadge) {
		f.Add("badge", "must be between 0 and %d", maxBadge)
	}
	if len(r.CollapseKey) > maxCollapseKey {
		f.Add("collapse_key", "is %d bytes long, the limit is %d", len(r.CollapseKey), maxCollapseKey)
	}
	if len(r.Data) > 0 {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(r.Data, &members); err != nil || members == nil {
			f.Add("data", "must be a JSON object")
		} else if _, ok := members[channels.ReservedKey]; ok {
			f.Add("data."+channels.ReservedKey, "is reserved for the delivery's id; use another name")
		}
	}
	for k, o := range r.Overrides {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(o, &members); err != nil || members == nil {
			f.Add("overrides."+k.String(), "must be a JSON object")
		}
	}
	for _, k := range channels.Kinds() {
		v, given := r.OverrideValidation[k]
		switch path := "override_validation." + k.String(); {
		case given && k == channels.Webhook:
			f.Add(path, "a webhook's override has no members of a provider; leave it out")
		case given && v != channels.Strict && v != channels.Lenient:
			f.Add(path, "must be strict or lenient")
		}
	}
}

// checkURL: images are fetched by phones and browsers, which want https; what a
// tap opens may be a deep link of the app, but never code.
func checkURL(f *problem.Fields, path, raw string, httpsOnly bool) {
	if raw == "" {
		return
	}
	u, err := url.Parse(raw)
	switch {
	case len(raw) > maxURL:
		f.Add(path, "is %d bytes long, the limit is %d", len(raw), maxURL)
	case err != nil || u.Scheme == "":
		f.Add(path, "must be an absolute URL such as https://example.com/x")
	case httpsOnly && (u.Scheme != "https" || u.Host == ""):
		f.Add(path, "must be an https URL")
	case slices.Contains([]string{"javascript", "data", "vbscript", "file", "blob"}, u.Scheme):
		f.Add(path, "may not be a %s: URL", u.Scheme)
	}
}

func (r *Request) checkTiming(f *problem.Fields, now time.Time) {
	if r.TTL != nil {
		if most := int64(tenants.MaxWebhookTTL / time.Second); *r.TTL < 0 || *r.TTL > most {
			f.Add("ttl", "must be between 0 and %d seconds", most)
		}
	}
	if r.SendAt.IsZero() {
		return
	}
	switch ahead := r.SendAt.Sub(now); {
	case ahead < -maxPastSendAt:
		f.Add("send_at", "is in the past; leave it out to send at once")
	case ahead > MaxSendAhead:
		f.Add("send_at", "is more than %d days ahead", int(MaxSendAhead/(24*time.Hour)))
	}
}

// message is the request as a channel sees it. Without a priority a channel
// decides by whether it shows something; what is silent shows nothing.
func (r *Request) message(notification string, created time.Time, k channels.Kind) channels.Message {
	m := channels.Message{
		Notification: notification, Type: r.Type, CreatedAt: created, Title: r.Title, Body: r.Body, Image: r.Image, URL: r.URL,
		Data: r.Data, Badge: r.Badge, Sound: r.Sound, Silent: r.Silent, Priority: r.Priority, CollapseKey: r.CollapseKey,
		Override: r.Overrides[k], Validation: r.OverrideValidation[k],
	}
	if m.Priority == "" && r.Silent {
		m.Priority = channels.Normal
	}
	return m
}
