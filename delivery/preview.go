package delivery

import (
	"cmp"
	"context"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// preview shows what accept would do, and does nothing.
func (pl *planner) preview(ctx context.Context, tenant ids.ID, r Request) (Preview, error) {
	now := pl.now()
	s, err := pl.tenants.get(ctx, tenant)
	if err != nil {
		return Preview{}, err
	}
	p, err := pl.plan(ctx, tenant, &r, pl.ids.Next(), now)
	if err != nil {
		return Preview{}, err
	}
	if p.accepted.Scheduled { // show who it would reach as things are now, or the first of them
		p.now = now
		next, err := pl.part(ctx, &p, &r, s, FanOut{})
		if err != nil {
			return Preview{}, err
		}
		p.receipt.FansOut = next != nil
	}
	v := Preview{FansOut: p.receipt.FansOut, Deliveries: p.receipt.Deliveries, Skips: p.receipt.Skips}
	reached := map[channels.Kind]ids.ID{}
	for _, d := range v.Deliveries {
		reached[d.Channel] = cmp.Or(reached[d.Channel], d.Target)
	}
	for _, k := range channels.Kinds() {
		if target, payload := reached[k], p.payloads[k]; target != 0 && payload != nil {
			v.Payloads = append(v.Payloads, PayloadPreview{Channel: k, Size: payload.Size(),
				Payload: payload.Preview(ids.FormatDelivery(p.accepted.ID, target))})
		}
	}
	return v, nil
}
