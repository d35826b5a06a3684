package main

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/updatectl/updatectl/agent/event"
)

// TestEventFields: what the journal gets of an event has its identity, its name and at least its priority.
func TestEventFields(t *testing.T) {
	var text string
	var priority journal.Priority
	var vars map[string]string
	log := zap.New(&logCore{level: zap.InfoLevel, write: func(e zapcore.Entry, s string, fields map[string]any) error {
		text = s
		priority, vars = journalFields(e, "updatectl-resume.service", fields)
		return nil
	}})
	for name, c := range map[string]struct {
		log      func()
		text     string
		priority journal.Priority
		vars     map[string]string
	}{
		"an event": {
			func() {
				log.Info("the switch failed", event.SwitchFailed.Field(), zap.String("root", "x"), zap.String("version", ""),
					zap.String("reason", "no such root"))
			},
			"the switch failed, root x: no such root", journal.PriErr,
			map[string]string{
				"MESSAGE_ID": "3a65bc842f934a20833cf4be1ce48a25", "UPDATECTL_EVENT": "switch-failed", "UPDATECTL_ROOT": "x",
				"UPDATECTL_VERSION": "", "UPDATECTL_REASON": "no such root",
			},
		},
		"more severe than the event": {
			func() { log.Error("it is staged", event.Staged.Field()) }, "it is staged", journal.PriErr,
			map[string]string{"MESSAGE_ID": "45de0d2c3c20436a9d462fad17fcfc0f", "UPDATECTL_EVENT": "staged"},
		},
		"no event": {
			func() { log.Warn("look", zap.String("live patch", "fix"), zap.Error(errors.New("broken"))) },
			"look, live patch fix: broken", journal.PriWarning,
			map[string]string{"UPDATECTL_LIVE_PATCH": "fix", "UPDATECTL_ERROR": "broken"},
		},
	} {
		c.log()
		c.vars["SYSLOG_IDENTIFIER"] = "updatectl"
		c.vars["OBJECT_SYSTEMD_UNIT"] = "updatectl-resume.service"
		if text != c.text || priority != c.priority || !maps.Equal(vars, c.vars) {
			t.Errorf("%s: %q, priority %d, %v", name, text, priority, vars)
		}
	}
}

// TestEventsAtTerminal: a person reads what they read before, and nothing of another tree gets into the journal.
func TestEventsAtTerminal(t *testing.T) {
	for _, verbose := range []bool{false, true} {
		var out strings.Builder
		log := newLogger(&out, false, false, false, verbose)
		log.Info("the root is good", event.Good.Field(), zap.String("root", "x"))
		log.Warn("kept", event.SlotKept.Field())
		want := "warning: kept\n"
		if verbose {
			want = "the root is good, root x\n" + want
		}
		if out.String() != want {
			t.Errorf("a terminal has %q, want %q", out.String(), want)
		}
	}
}
