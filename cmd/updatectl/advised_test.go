package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
)

// TestRetryKeepsFlags: the hint for an image that was given up asks for the same image.
func TestRetryKeepsFlags(t *testing.T) {
	err := adviseRetry(record.Bad{Reason: "x"}.Err(), agent.ApplyOptions{From: "oci:a:b", AllowDowngrade: true})
	if got := hint(err); got != "`updatectl apply --retry --from oci:a:b --allow-downgrade` takes it anyway" ||
		exitCode(err) != exitBlocked {
		t.Errorf("exit code %d, hint %q", exitCode(err), got)
	}
	if strings.Contains(err.Error(), "for now") {
		t.Errorf("%q does not pass", err)
	}
	if other := errors.New("other"); adviseRetry(other, agent.ApplyOptions{}) != other {
		t.Error("another error is changed")
	}
}
