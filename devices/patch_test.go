package devices_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

func (s *memory) UpdateDevice(ctx context.Context, tenant, id ids.ID, p devices.Patch) (devices.Device, error) {
	d, err := s.Device(ctx, tenant, id)
	if err == nil {
		err = p.Apply(&d)
	}
	return d, err
}

func TestPatch(t *testing.T) {
	t.Parallel()
	known := func() devices.Device {
		return devices.Device{AppVersion: "1", Locale: "de", TimeZone: "UTC", Tags: map[string]string{"plan": "pro", "trial": "yes"}}
	}
	d := known()
	p := devices.Patch{Locale: new("fr"), TimeZone: new(""), Tags: map[string]*string{"trial": nil, "beta": new("1"), "never": nil}}
	require.NoError(t, p.Apply(&d))
	require.Equal(t, devices.Device{AppVersion: "1", Locale: "fr", Tags: map[string]string{"plan": "pro", "beta": "1"}}, d)

	d = known()
	p = devices.Patch{Tags: map[string]*string{"trial": nil, "plan": nil}}
	require.NoError(t, p.Apply(&d))
	require.Nil(t, d.Tags)

	d = known()
	p = devices.Patch{Tags: map[string]*string{}}
	for n := range devices.MaxTags - 1 {
		p.Tags[fmt.Sprint("t", n)] = new("x")
	}
	err := p.Apply(&d)
	require.Equal(t, problem.Invalid, problem.CodeOf(err))
	require.Equal(t, known(), d, "nothing is changed")
}

func TestUpdateRefusesWhatARegistrationWould(t *testing.T) {
	t.Parallel()
	r, _ := registry()
	for path, p := range map[string]devices.Patch{
		"app_version": {AppVersion: new(strings.Repeat("1", devices.MaxAppVersion+1))},
		"locale":      {Locale: new("no such language")},
		"time_zone":   {TimeZone: new("Mars/Olympus")},
		"tags.plan":   {Tags: map[string]*string{"plan": new("a\x00b")}},
		"tags":        {Tags: map[string]*string{"no key": nil}},
	} {
		_, err := r.Update(t.Context(), 1, 2, p)
		var e *problem.Error
		require.ErrorAs(t, err, &e, path)
		require.Len(t, e.Fields, 1, path)
		require.Equal(t, path, e.Fields[0].Path)
	}
}
