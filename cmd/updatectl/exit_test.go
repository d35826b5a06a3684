package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/configs"
	"github.com/updatectl/updatectl/switcher/imagekernel"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// TestEarlyUnitsNeverFail: whatever updatectl ends with, the units that load live patches and that renew what is active
// have not failed. A failed unit makes a new root count as unhealthy.
func TestEarlyUnitsNeverFail(t *testing.T) {
	codes := []int{exitError, exitUsage, exitAvailable}
	for _, f := range failures {
		codes = append(codes, f.code)
	}
	for _, unit := range []string{"updatectl-livepatch.service", "updatectl-renew.service"} {
		_, after, _ := strings.Cut(configs.Units()[unit], "\nSuccessExitStatus=")
		line, _, _ := strings.Cut(after, "\n")
		accepted := strings.Fields(line)
		for _, code := range codes {
			if !slices.Contains(accepted, strconv.Itoa(code)) {
				t.Errorf("exit code %d of %s is a failure; %q are none", code, unit, line)
			}
		}
	}
}

// TestDeafIsTheLast: that PID 1 did not answer is only reported if nothing else went wrong.
func TestDeafIsTheLast(t *testing.T) {
	if err := fmt.Errorf("%w: %w", transition.ErrFullRebootFollows, pid1.ErrUnresponsive); exitCode(err) != exitError ||
		!strings.Contains(hint(err), "the host resumes its last good root") {
		t.Errorf("an unexpected full reboot ends with %d, %s", exitCode(err), hint(err))
	}
	for want, err := range map[int]error{
		exitBlocked:   fmt.Errorf("cannot talk to systemd: %w", pid1.ErrUnresponsive),
		exitUnhealthy: fmt.Errorf("%w: going back failed: %w", record.ErrUnhealthy, pid1.ErrUnresponsive),
		exitNoSpace:   errors.Join(unix.ENOSPC, pid1.ErrUnresponsive),
		exitError:     errors.Join(pid1.ErrNoUnit, pid1.ErrUnresponsive),
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v ends with %d, want %d", err, got, want)
		}
	}
	if !strings.Contains(hint(pid1.ErrUnresponsive), "try again") {
		t.Errorf("the hint is %q", hint(pid1.ErrUnresponsive))
	}
}

// TestKernelRefused: what is wrong with the host root is incompatible, and what room would help is no space.
func TestKernelRefused(t *testing.T) {
	for want, err := range map[int]error{
		exitIncompatible: errors.Join(fmt.Errorf("%w: too old", imagekernel.ErrHost), imagekernel.ErrInstall),
		exitNoSpace:      fmt.Errorf("%w 6.13: %w: /boot has 3 MiB free", imagekernel.ErrInstall, unix.ENOSPC),
	} {
		if code := exitCode(err); code != want {
			t.Errorf("%v: the code is %d, want %d", err, code, want)
		}
	}
	if code := exitCode(fmt.Errorf("%w: modules of another build", imagekernel.ErrInstall)); code != exitIncompatible {
		t.Errorf("the code for what is in the way is %d", code)
	}
}
