package delivery

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

const (
	maxPayloads     = 1024     // in memory
	maxPayloadBytes = 64 << 20 // of these
	// heldPayload is the largest, in bytes, that a delivery holds while it waits for its
	// turn: no push is larger. A larger one, of a webhook, is read again when its turn
	// comes, unless it is still known then, so that what waits does not fill the memory.
	heldPayload = 8 << 10
)

// ContentStore reads the content of notifications.
type ContentStore interface {
	Content(ctx context.Context, tenant, notification ids.ID) ([]byte, error)
}

// payloads prepares what is sent of notifications that are claimed, and keeps it,
// so that the retries of one with many targets prepare it once.
type payloads struct {
	store    ContentStore
	channels map[channels.Kind]channels.Channel
	prepared cache[payloadKey, channels.Payload]
}

type payloadKey struct {
	notification ids.ID
	kind         channels.Kind
}

func newPayloads(s ContentStore, all map[channels.Kind]channels.Channel) *payloads {
	return &payloads{store: s, channels: all, prepared: cache[payloadKey, channels.Payload]{most: maxPayloads,
		weigh: channels.Payload.Size, mostWeight: maxPayloadBytes}}
}

// get prepares the payload of a delivery. unmappable: the stored content cannot be
// turned into one, which no retry will mend.
func (p *payloads) get(ctx context.Context, it *inflight) (payload channels.Payload, unmappable bool, err error) {
	k := payloadKey{it.Notification, it.Channel}
	if payload, ok := p.prepared.get(k); ok {
		return payload, false, nil
	}
	body, err := p.store.Content(ctx, it.Tenant, it.Notification)
	if err != nil {
		return nil, false, err
	}
	var r Request
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, true, fmt.Errorf("read the stored content: %w", err)
	}
	m := r.message(it.Notification.Format(ids.Notification), it.Notification.Time(), it.Channel)
	m.Accepted = true
	payload, err = p.channels[it.Channel].Prepare(m)
	if err != nil {
		return nil, true, err
	}
	p.prepared.put(k, payload)
	return payload, false, nil
}

// hold is what a delivery that was just accepted holds of its payload until its turn.
func (p *payloads) hold(notification ids.ID, k channels.Kind, payload channels.Payload) channels.Payload {
	if payload.Size() <= heldPayload {
		return payload
	}
	p.prepared.put(payloadKey{notification, k}, payload)
	return nil
}

// clear forgets all: what was erased must not be sent from memory.
func (p *payloads) clear() { p.prepared.clear() }
