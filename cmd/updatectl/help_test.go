package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/cmd/cmdtest"
	"github.com/updatectl/updatectl/verify/printable"
)

// TestHelpFits measures the help of every command.
func TestHelpFits(t *testing.T) {
	root := newRoot(&cli{stdout: io.Discard, stderr: io.Discard})
	pages := cmdtest.HelpFits(t, root, func(args []string, out io.Writer) int { return run(t.Context(), args, out, out) })
	if pages < 25 {
		t.Errorf("only %d pages were seen", pages)
	}
}

// TestHintsFit: however long it is, a hint is folded like an error.
func TestHintsFit(t *testing.T) {
	for _, f := range failures {
		var out bytes.Buffer
		c := &cli{stderr: &out}
		c.complain(f.err)
		for _, problem := range cmdtest.TooWide(out.String()) {
			t.Errorf("%v: %s", f.err, problem)
		}
		if !strings.Contains(printable.Unwrap(out.String()), "\nhint: "+f.hint+"\n") {
			t.Errorf("%v is reported as\n%s", f.err, out.String())
		}
	}
}

// TestFolded: nothing is folded for the journal.
func TestFolded(t *testing.T) {
	digest := strings.Repeat("0123456789abcdef", 4)
	words := strings.TrimSpace(strings.Repeat("word ", 20))
	text := words + " sha256-" + digest + "\n"
	if got := (&cli{}).folded(text); strings.Count(got, "\n") < 2 || strings.Contains(got, digest) {
		t.Errorf("at a terminal, it is %q", got)
	}
	if got := (&cli{unbroken: true}).folded(text); got != text {
		t.Errorf("in the journal, it is %q", got)
	}
}
