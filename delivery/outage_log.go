package delivery

import (
	"context"
	"log/slog"

	"github.com/carillonhq/carillon/problem"
)

// outageLog leaves out what is logged because the database is away. The store says
// once that it is, and once that this is over; what each loop meets meanwhile is the
// same again.
type outageLog struct{ slog.Handler }

func (l outageLog) Handle(ctx context.Context, r slog.Record) error {
	away := false
	r.Attrs(func(a slog.Attr) bool {
		err, ok := a.Value.Any().(error)
		away = ok && problem.CodeOf(err) == problem.Unavailable
		return !away
	})
	if away {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

func (l outageLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return outageLog{l.Handler.WithAttrs(attrs)}
}

func (l outageLog) WithGroup(name string) slog.Handler { return outageLog{l.Handler.WithGroup(name)} }
