package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"github.com/updatectl/updatectl/agent/event"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/verify/printable"
)

// inJournal reports whether stderr is the journal's: systemd runs this, and nobody reads it at a terminal.
func inJournal(stderr io.Writer) bool {
	f, ok := stderr.(*os.File)
	if !ok || f != os.Stderr {
		return false
	}
	is, err := journal.StderrIsJournalStream()
	return err == nil && is
}

// newLogger returns the logger of one run: sentences on stderr for a person, or entries with fields in the journal. The
// events of the running host, here, are in the journal even if a person started the command at a terminal.
func newLogger(stderr io.Writer, here, inJournal, quiet, verbose bool) *zap.Logger {
	level := zapcore.WarnLevel
	switch {
	case quiet:
		level = zapcore.ErrorLevel
	case verbose:
		level = zapcore.DebugLevel
	}
	if inJournal {
		write := toJournal
		if !here {
			write = plainToJournal
		}
		return zap.New(&logCore{level: min(level, zapcore.InfoLevel), write: write})
	}
	person := &logCore{level: level, write: func(e zapcore.Entry, text string, _ map[string]any) error {
		_, err := io.WriteString(stderr, report.Fold(logPrefix[e.Level]+printable.Text(text)+"\n"))
		return err
	}}
	if !here || !journal.Enabled() {
		return zap.New(person)
	}
	return zap.New(zapcore.NewTee(person, &logCore{level: zapcore.InfoLevel, write: eventToJournal}))
}

// logPrefix begins the lines that report no ordinary step.
var logPrefix = map[zapcore.Level]string{zapcore.WarnLevel: "warning: ", zapcore.ErrorLevel: "error: "}

// logCore writes each entry as a sentence.
type logCore struct {
	level  zapcore.Level
	fields []zapcore.Field
	write  func(e zapcore.Entry, text string, fields map[string]any) error
}

// Enabled reports whether entries of a level are written.
func (c *logCore) Enabled(l zapcore.Level) bool { return l >= c.level }

// With returns a core that adds fields to every entry.
func (c *logCore) With(fields []zapcore.Field) zapcore.Core {
	return &logCore{c.level, slices.Concat(c.fields, fields), c.write}
}

// Check adds the core to an entry that it writes.
func (c *logCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write writes an entry. Its fields end the sentence, in their order.
func (c *logCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	all, text := zapcore.NewMapObjectEncoder(), e.Message
	for _, f := range slices.Concat(c.fields, fields) {
		f.AddTo(all)
		switch value, has := all.Fields[f.Key]; {
		case !has, value == "": // an error that is nil, or nothing to say
		case isEvent(value):
		case f.Key == "error" || f.Key == "reason":
			text += fmt.Sprintf(": %v", value)
		default:
			text += fmt.Sprintf(", %s %v", f.Key, value)
		}
	}
	return c.write(e, text, all.Fields)
}

// Sync does nothing: nothing is kept back.
func (c *logCore) Sync() error { return nil }

// toJournal sends an entry to the journal.
func toJournal(e zapcore.Entry, text string, fields map[string]any) error {
	priority, vars := journalFields(e, pid1.Unit(), fields)
	return journal.Send(report.ShortDigests(text), priority, vars)
}

// plainToJournal sends an entry to the journal without its event, because the entry is about the tree of another host.
func plainToJournal(e zapcore.Entry, text string, fields map[string]any) error {
	maps.DeleteFunc(fields, func(_ string, value any) bool { return isEvent(value) })
	return toJournal(e, text, fields)
}

// journalFields returns the priority and the fields of an entry (systemd.journal-fields(7)). That of an event has its
// MESSAGE_ID, too.
//
// Each entry names its unit, unless that is "". journald looks up the unit of the sender, but cannot do so once the
// process has ended, and `journalctl --unit` would not show the last entries of a short run.
func journalFields(e zapcore.Entry, unit string, fields map[string]any) (journal.Priority, map[string]string) {
	priority, vars := journalPriority[e.Level], map[string]string{"SYSLOG_IDENTIFIER": "updatectl"}
	if unit != "" {
		vars["OBJECT_SYSTEMD_UNIT"] = unit
	}
	if is, found := event.Of(fields); found {
		priority = min(priority, journalPriority[is.Level()]) // the lowest is the most severe
		vars["MESSAGE_ID"] = is.ID()
	}
	for name, value := range fields {
		vars[event.FieldName(name)] = fmt.Sprint(value)
	}
	return priority, vars
}

// journalPatience is how long a person's command waits for a journal that hangs.
const journalPatience = time.Second

// eventToJournal sends an entry to the journal if the entry reports an event. Other output of a command that a person
// runs at a terminal is not sent. A failure to send is ignored: it does not concern that person.
func eventToJournal(e zapcore.Entry, text string, fields map[string]any) error {
	if _, is := event.Of(fields); !is {
		return nil
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_ = toJournal(e, text, fields)
	}()
	select {
	case <-sent:
	case <-time.After(journalPatience):
	}
	return nil
}

// isEvent reports whether the value of a field is the event of its entry, which is no part of the sentence.
func isEvent(value any) bool {
	_, is := value.(event.Event)
	return is
}

var journalPriority = map[zapcore.Level]journal.Priority{
	zapcore.DebugLevel: journal.PriDebug, zapcore.InfoLevel: journal.PriInfo,
	zapcore.WarnLevel: journal.PriWarning, zapcore.ErrorLevel: journal.PriErr,
}

// hasSize reports whether a terminal knows how wide it is.
func hasSize(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	return err == nil && columns > 0
}

// isTerminal reports whether w is a terminal, where bars make sense.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
