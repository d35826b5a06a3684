package main

import (
	"errors"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
)

// advised is an error with its own hint, where that depends on the command that was given.
type advised struct {
	error
	hint string
}

func (a advised) Unwrap() error { return a.error }

// errInterrupted is what a command ends with after a signal.
var errInterrupted = errors.New("interrupted")

// interruptionOf returns the error of a command that a signal ended: what is true then, and what to do. What
// has arrived of an image over a network is kept for the next run.
func interruptionOf(command string) error {
	switch command {
	case "updatectl stage", "updatectl apply":
		return advised{interruption("interrupted; what has arrived of an image is kept for a week"),
			"the same command goes on with it; `updatectl status` shows what is staged, and whether a switch is under way"}
	case "updatectl rollback":
		return advised{errInterrupted,
			"`updatectl status` shows whether the host rolls back; if not, run the same command again"}
	case "updatectl switch":
		return advised{errInterrupted,
			"`updatectl status` shows whether a switch is under way; if not, run the same command again"}
	case "updatectl confirm":
		return advised{interruption("interrupted; the running root is not judged"),
			"run the same command again; a root that is still being tried is rolled back at its deadline"}
	}
	return advised{errInterrupted, "run the same command again"}
}

// interruption is an errInterrupted in other words.
type interruption string

func (i interruption) Error() string { return string(i) }
func (interruption) Unwrap() error   { return errInterrupted }

// adviseRetry adds to an image that was given up how to take it with the same flags.
func adviseRetry(err error, o agent.ApplyOptions) error {
	if !errors.Is(err, record.ErrGivenUp) {
		return err
	}
	return advised{err, "`updatectl apply --retry" + flagsOf(o) + "` takes it anyway"}
}
