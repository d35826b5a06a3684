package main

import (
	"io"
	"os"
	"testing"

	"github.com/updatectl/updatectl/cmd/cmdtest"
)

// TestHelpFits measures the help of every command.
func TestHelpFits(t *testing.T) {
	root := newRoot(&output{stdout: io.Discard, stderr: io.Discard})
	pages := cmdtest.HelpFits(t, root, func(args []string, out io.Writer) int { return run(args, out, out) })
	if pages < 14 {
		t.Errorf("only %d pages were seen", pages)
	}
}

// measured is main, and checks what it prints.
var measured = cmdtest.Measured(func(stdout, stderr io.Writer) int {
	version = "v1.2.3-test" // as -ldflags would set it
	return run(os.Args[1:], stdout, stderr)
}, cmdtest.AsIs)
