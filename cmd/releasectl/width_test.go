package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/cmdtest"
)

// TestHelpFits measures the help of every command.
func TestHelpFits(t *testing.T) {
	pages := 0
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		var out bytes.Buffer
		if code := run(append(strings.Fields(c.CommandPath())[1:], "--help"), &out, &out); code != 0 ||
			out.Len() == 0 {
			t.Errorf("%s --help ended with %d: %s", c.CommandPath(), code, out.String())
		}
		for _, problem := range cmdtest.TooWide(out.String()) {
			t.Errorf("%s --help has %s", c.CommandPath(), problem)
		}
		pages++
		for _, below := range c.Commands() {
			check(below)
		}
	}
	check(newRoot(&output{stdout: io.Discard, stderr: io.Discard}))
	if pages < 14 {
		t.Errorf("only %d pages were seen", pages)
	}
}

// measured is main, and checks what it prints.
var measured = cmdtest.Measured(func(stdout, stderr io.Writer) int {
	version = "v1.2.3-test" // as -ldflags would set it
	return run(os.Args[1:], stdout, stderr)
}, cmdtest.AsIs)
