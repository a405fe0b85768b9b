package delivery

import (
	"context"
	"errors"
	"log/slog"

	"github.com/carillonhq/carillon/problem"
)

// loopLog is the log of what runs in the background. It leaves out errors that are no
// news: those of a database that is away, since the store says once that it is and once
// that this is over; and of what was under way when the engine stopped, which is done
// after the next start.
type loopLog struct {
	slog.Handler
	stopping func() bool
}

func (l loopLog) Handle(ctx context.Context, r slog.Record) error {
	news := true
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			news = problem.CodeOf(err) != problem.Unavailable && !(l.stopping() && errors.Is(err, context.Canceled))
		}
		return news
	})
	if !news {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

func (l loopLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return loopLog{l.Handler.WithAttrs(attrs), l.stopping}
}

func (l loopLog) WithGroup(name string) slog.Handler {
	return loopLog{l.Handler.WithGroup(name), l.stopping}
}
