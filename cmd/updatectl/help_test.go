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

// TestFolded: further lines of a value begin below it, digests are short, and a reference keeps its digest.
func TestFolded(t *testing.T) {
	digest := strings.Repeat("0123456789abcdef", 4)
	words := strings.TrimSpace(strings.Repeat("word ", 20))
	for text, want := range map[string]string{
		"Label  " + words: "Label  " + words[:59],
		"root sha256-" + digest + " of sha256:" + digest: "root sha256-0123456789ab of sha256:0123456789ab\n",
		"os@sha256:" + digest:                            "os@sha256:" + digest + "\n",
	} {
		if got := (&cli{}).folded(text + "\n"); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := (&cli{}).folded("Label  " + words + "\n"); !strings.Contains(got, "\n       word") {
		t.Errorf("got %q", got)
	}
	if got := (&cli{unbroken: true}).folded(words + " sha256-" + digest + "\n"); got != words+" sha256-"+digest+"\n" {
		t.Errorf("in the journal, it is %q", got)
	}
}
