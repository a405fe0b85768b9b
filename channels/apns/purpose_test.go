package apns_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/apns"
)

func TestThePushTypeSaysWhichTokens(t *testing.T) {
	t.Parallel()
	c := apns.New(apns.Options{})
	for override, want := range map[string]channels.Purpose{
		``:                             channels.Alert,
		`null`:                         channels.Alert,
		`{"priority":5}`:               channels.Alert,
		`{"push_type":"alert"}`:        channels.Alert,
		`{"push_type":"background"}`:   channels.Alert,
		`{"push_type":"voip"}`:         channels.VoIP,
		`{"push_type":"complication"}`: channels.Alert,
		`{"push_type":"fileprovider"}`: channels.Alert,
		`{"push_type":"location"}`:     channels.Alert,
		`{"push_type":"pushtotalk"}`:   channels.Alert,
		`{"push_type":"controls"}`:     channels.Alert,
		`{"push_type":"widgets","aps":{"content-changed":true}}`: channels.Widget,
		`{"push_type":"liveactivity","aps":{"event":"start"}}`:   channels.PushToStart,
		`{"push_type":"liveactivity","aps":{"event":"update"}}`:  channels.Activity,
		`{"push_type":"liveactivity","aps":{"event":"end"}}`:     channels.Activity,
		`{"push_type":"liveactivity"}`:                           channels.Activity, // Prepare refuses it
		`{"push_type":7}`:                                        channels.Alert,
	} {
		require.Equal(t, want, c.PurposeOf(channels.Message{Override: json.RawMessage(override)}), override)
	}
}
