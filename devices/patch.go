package devices

import (
	"context"
	"maps"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// Patch changes what is known of a device, and not where it is or whose. nil leaves what is
// there, "" takes it away.
type Patch struct {
	AppVersion *string
	Locale     *string            // BCP 47
	TimeZone   *string            // IANA
	Tags       map[string]*string // those that are named; nil takes one away
}

// Apply changes a device. It refuses what would give it more tags than a device may have.
func (p *Patch) Apply(d *Device) error {
	tags := maps.Clone(d.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	for name, value := range p.Tags {
		if value == nil {
			delete(tags, name)
			continue
		}
		tags[name] = *value
	}
	if len(tags) > MaxTags {
		return problem.AtField("tags", "would be %d on this device; at most %d are allowed: take some away with null", len(tags), MaxTags)
	}
	if d.Tags = tags; len(tags) == 0 {
		d.Tags = nil
	}
	for of, to := range map[*string]*string{&d.AppVersion: p.AppVersion, &d.Locale: p.Locale, &d.TimeZone: p.TimeZone} {
		if to != nil {
			*of = *to
		}
	}
	return nil
}

// Update changes what is known of a device. The device is not taken to have been heard of.
func (r *Registry) Update(ctx context.Context, tenant, id ids.ID, p Patch) (Device, error) {
	if err := r.checkPatch(&p); err != nil {
		return Device{}, err
	}
	return r.store.UpdateDevice(ctx, tenant, id, p)
}

func (r *Registry) checkPatch(p *Patch) error {
	var faults problem.Fields
	checkShort(&faults, "app_version", valueOf(p.AppVersion), MaxAppVersion)
	if p.Locale != nil {
		locale := checkLocale(&faults, *p.Locale)
		p.Locale = &locale
	}
	r.checkZone(&faults, valueOf(p.TimeZone))
	tags := make(map[string]string, len(p.Tags))
	for name, value := range p.Tags {
		tags[name] = valueOf(value)
	}
	checkTags(&faults, tags)
	return faults.Err()
}

func valueOf(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
