package main

import (
	"io"
	"log/slog"
)

// newLogger makes the log of this process, one line an event.
func newLogger(c LogConfig, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.level()}
	if c.Format == "text" || (c.Format == "auto" && isTerminal(w)) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// level is the least level that is logged.
func (c LogConfig) level() slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.Level)); err != nil {
		return slog.LevelInfo
	}
	return l
}
