package delivery

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/apns"
	"github.com/carillonhq/carillon/ids"
)

type storedContent string

func (s storedContent) Content(context.Context, ids.ID, ids.ID) ([]byte, error) {
	return []byte(s), nil
}

// TestAcceptedContentIsNotJudgedByNewRules: a widget push without content-changed
// was accepted before that was asked for. It is sent, and Apple judges it.
func TestAcceptedContentIsNotJudgedByNewRules(t *testing.T) {
	t.Parallel()
	all := map[channels.Kind]channels.Channel{channels.APNs: apns.New(apns.Options{})}
	it := &inflight{Row: Row{Notification: 1, Channel: channels.APNs}}
	for content, bad := range map[string]bool{
		`{"title":"a","overrides":{"apns":{"push_type":"widgets"}}}`:        false,
		`{"title":"a","overrides":{"apns":{"custom":{"carillon":"mine"}}}}`: true,
		`{`: true,
	} {
		payload, unmappable, err := newPayloads(storedContent(content), all).get(t.Context(), it)
		require.Equal(t, bad, unmappable, content)
		require.Equal(t, bad, err != nil)
		require.Equal(t, bad, payload == nil)
	}
}
