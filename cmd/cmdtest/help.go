package cmdtest

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// HelpFits measures the help of a command and of all commands below it, and returns how many pages it saw. The
// arguments of run are those after the name of the program.
func HelpFits(t *testing.T, c *cobra.Command, run func(args []string, out io.Writer) int) (pages int) {
	t.Helper()
	var out bytes.Buffer
	args := append(strings.Fields(c.CommandPath())[1:], "--help")
	if code := run(args, &out); code != 0 || out.Len() == 0 {
		t.Errorf("%s --help ended with %d: %s", c.CommandPath(), code, out.String())
	}
	for _, problem := range TooWide(out.String()) {
		t.Errorf("%s --help has %s", c.CommandPath(), problem)
	}
	pages = 1
	for _, below := range c.Commands() {
		pages += HelpFits(t, below, run)
	}
	return pages
}
