package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
)

// TestAdviseAccept: the hint of a loss is the exact next command and the page with the ways on, and the exit code that
// of an incompatible image.
func TestAdviseAccept(t *testing.T) {
	o := agent.ApplyOptions{From: "oci:x:y", Accept: []record.LossKind{record.LossAccess}}
	err := adviseAccept(roots.Loss{Kinds: []record.LossKind{record.LossServices}}, "apply", o)
	const next = "`updatectl apply --accept access,services --from oci:x:y`"
	advice := hint(err)
	if exitCode(err) != exitIncompatible || !strings.Contains(advice, next) ||
		!strings.Contains(advice, "`updatectl adopt`") || !strings.Contains(advice, "docs/first-apply.md") {
		t.Errorf("%v: %s", err, hint(err))
	}
	other := errors.New("x")
	if adviseAccept(other, "apply", o) != other {
		t.Error("another error gets a hint")
	}
}
