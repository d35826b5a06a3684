package main

import (
	"io"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"
)

// newLogger makes the logger of one run: plain lines on stderr for a person; below systemd the same lines with the
// journal's priority prefix (sd-daemon(3)) and without a time, which the journal has.
func newLogger(stderr io.Writer, quiet, verbose bool) *zap.Logger {
	level := zapcore.WarnLevel
	switch {
	case quiet:
		level = zapcore.ErrorLevel
	case verbose:
		level = zapcore.DebugLevel
	case os.Getenv("JOURNAL_STREAM") != "":
		level = zapcore.InfoLevel
	}
	encoding := zapcore.EncoderConfig{MessageKey: "msg", LevelKey: "level", ConsoleSeparator: " ", EncodeLevel: zapcore.LowercaseLevelEncoder}
	if os.Getenv("JOURNAL_STREAM") != "" {
		encoding.EncodeLevel = journalPriority
	}
	core := zapcore.NewCore(zapcore.NewConsoleEncoder(encoding), zapcore.AddSync(stderr), level)
	return zap.New(core)
}

// journalPriority writes a level as the prefix that the journal reads from a service's stderr.
func journalPriority(l zapcore.Level, enc zapcore.PrimitiveArrayEncoder) {
	priority := map[zapcore.Level]string{zapcore.DebugLevel: "<7>", zapcore.InfoLevel: "<6>", zapcore.WarnLevel: "<4>", zapcore.ErrorLevel: "<3>"}
	enc.AppendString(priority[l])
}

// isTerminal tells whether w is a terminal, where bars make sense.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
