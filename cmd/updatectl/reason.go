package main

import (
	"errors"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/unattended"
	"github.com/updatectl/updatectl/agent/volatile"
	"github.com/updatectl/updatectl/switcher/livepatch"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// reasons are the words for what an exit code means to a script. Exit code 12 has several, see blocked.
var reasons = map[int]string{
	exitError: "error", exitUsage: "usage", exitFullReboot: "full-reboot", exitBlocked: "blocked",
	exitNotTrusted: "not-trusted", exitStale: "stale", exitIncompatible: "incompatible", exitNoSpace: "no-space",
	exitUnreachable: "unreachable", exitUnhealthy: "unhealthy", exitInterrupted: "interrupted",
}

// blocked are the words for what blocks a command, besides those of [unattended.Blocked]. The first match counts.
var blocked = []struct {
	err    error
	reason string
}{
	{agent.ErrTrying, "trying"},
	{record.ErrGivenUp, "given-up"},
	{volatile.ErrRuns, "volatile"},
	{volatile.ErrNot, "volatile"},
	{live.ErrSoftRebootHelps, "live-patch"},
	{livepatch.ErrStalled, "live-patch"},
	{livepatch.ErrBusy, "live-patch"},
	{pid1.ErrUnresponsive, "restarting"},
}

// reason returns one word for an error, from the closed list of docs/exit-codes.md.
func reason(err error) string {
	code := exitCode(err)
	if code != exitBlocked {
		return reasons[code]
	}
	if word := unattended.Blocked(err); word != "" {
		return word
	}
	for _, b := range blocked {
		if errors.Is(err, b.err) {
			return b.reason
		}
	}
	return reasons[code]
}
