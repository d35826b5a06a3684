// Package cmdtest checks what a command prints, whatever a test runs it for: text fits a terminal, and JSON is one
// document that obeys its published schema.
package cmdtest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/updatectl/updatectl/docs/schemas"
	"github.com/updatectl/updatectl/verify/printable"
)

// Broken is the exit code of a command in a test whose output is not as it must be.
const Broken = 99

// Measured returns a main function that runs a command and checks what it printed. What is wrong is printed after it,
// and the exit code is [Broken]. The test sees what was printed as seen returns it: with [printable.Unwrap], it finds
// sentences wherever they were broken to fit.
func Measured(run func(stdout, stderr io.Writer) int, seen func(string) string) func() {
	return func() {
		if term.IsTerminal(int(os.Stderr.Fd())) { // the command has to see that it is one
			os.Exit(run(os.Stdout, os.Stderr))
		}
		var stdout, stderr bytes.Buffer
		code := run(&stdout, &stderr)
		problems := TooWide(stderr.String())
		io.WriteString(os.Stderr, seen(stderr.String()))
		if strings.HasPrefix(stdout.String(), "{") {
			if err := schemas.Check(stdout.Bytes()); err != nil {
				problems = append(problems, fmt.Sprintf("the JSON is not as docs/schemas says: %v", err))
			}
		} else {
			problems = append(problems, TooWide(stdout.String())...)
		}
		io.WriteString(os.Stdout, seen(stdout.String()))
		for _, problem := range problems {
			fmt.Fprintf(os.Stderr, "BROKEN: %s\n", problem)
			code = Broken
		}
		os.Exit(code)
	}
}

// oneLine matches a line of a configuration, or what a metric is, which cannot be broken.
var oneLine = regexp.MustCompile(`^#? *[a-z-]+ = |^# HELP `)

// TooWide returns a complaint about every line that does not fit a terminal. A word that cannot be broken, alone on its
// line, is none.
func TooWide(text string) []string {
	var wide []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		n := utf8.RuneCountInString(line)
		if n > printable.Columns && len(strings.Fields(line)) > 1 && !oneLine.MatchString(line) {
			wide = append(wide, fmt.Sprintf("a line of %d columns: %s", n, line))
		}
	}
	return wide
}

// AsIs returns text as it was printed.
func AsIs(text string) string { return text }
