package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"github.com/updatectl/updatectl/verify/printable"
)

// newLogger makes the logger of one run: plain lines on stderr for a person, or entries with fields in the journal when
// systemd runs this.
func newLogger(stderr io.Writer, quiet, verbose bool) *zap.Logger {
	level := zapcore.WarnLevel
	switch {
	case quiet:
		level = zapcore.ErrorLevel
	case verbose:
		level = zapcore.DebugLevel
	}
	if f, ok := stderr.(*os.File); ok {
		if below, err := journal.StderrIsJournalStream(); err == nil && below && f == os.Stderr {
			return zap.New(&journalCore{level: min(level, zapcore.InfoLevel)})
		}
	}
	plain := zapcore.EncoderConfig{MessageKey: "msg", LevelKey: "level", ConsoleSeparator: " ", EncodeLevel: zapcore.LowercaseLevelEncoder}
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(plain), zapcore.AddSync(printable.Lines(stderr)), level))
}

// journalCore writes entries to the journal with their fields (systemd.journal-fields(7)), so that
// `journalctl UPDATECTL_ROOT=…` finds them.
type journalCore struct {
	level  zapcore.Level
	fields []zapcore.Field
}

func (c *journalCore) Enabled(l zapcore.Level) bool { return l >= c.level }

func (c *journalCore) With(fields []zapcore.Field) zapcore.Core {
	return &journalCore{c.level, append(append([]zapcore.Field{}, c.fields...), fields...)}
}

func (c *journalCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *journalCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	all := zapcore.NewMapObjectEncoder()
	for _, f := range append(append([]zapcore.Field{}, c.fields...), fields...) {
		f.AddTo(all)
	}
	vars := map[string]string{"SYSLOG_IDENTIFIER": "updatectl"}
	text := e.Message
	for name, value := range all.Fields {
		vars["UPDATECTL_"+strings.ToUpper(strings.ReplaceAll(name, " ", "_"))] = fmt.Sprint(value)
		text += fmt.Sprintf(", %s %v", name, value)
	}
	return journal.Send(text, journalPriority[e.Level], vars)
}

func (c *journalCore) Sync() error { return nil }

var journalPriority = map[zapcore.Level]journal.Priority{
	zapcore.DebugLevel: journal.PriDebug, zapcore.InfoLevel: journal.PriInfo,
	zapcore.WarnLevel: journal.PriWarning, zapcore.ErrorLevel: journal.PriErr,
}

// isTerminal tells whether w is a terminal, where bars make sense.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
