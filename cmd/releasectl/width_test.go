package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/verify/printable"
)

// tooWide returns the lines that do not fit a terminal, except for single words, which cannot be broken.
func tooWide(text string) []string {
	var wide []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if utf8.RuneCountInString(line) > printable.Columns && len(strings.Fields(line)) > 1 {
			wide = append(wide, line)
		}
	}
	return wide
}

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
		for _, line := range tooWide(out.String()) {
			t.Errorf("%s --help has a line of %d columns: %s", c.CommandPath(), utf8.RuneCountInString(line), line)
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

// broken is the exit code of a command in a script whose output is wrong.
const broken = 99

// measured is main, and checks its output: text must fit a terminal, and JSON must not contain null.
func measured() {
	version = "v1.2.3-test" // as -ldflags would set it
	var stdout, stderr bytes.Buffer
	code := run(os.Args[1:], io.MultiWriter(os.Stdout, &stdout), io.MultiWriter(os.Stderr, &stderr))
	wide := tooWide(stderr.String())
	if strings.HasPrefix(stdout.String(), "{") {
		var document any
		if err := json.Unmarshal(stdout.Bytes(), &document); err != nil || hasNull(document) {
			fmt.Fprintln(os.Stderr, "the JSON above cannot be read, or has a null in it:", err)
			code = broken
		}
	} else {
		wide = append(wide, tooWide(stdout.String())...)
	}
	for _, line := range wide {
		fmt.Fprintf(os.Stderr, "a line above has %d columns: %s\n", utf8.RuneCountInString(line), line)
		code = broken
	}
	os.Exit(code)
}

// hasNull reports whether a decoded JSON document has a null in it.
func hasNull(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case []any:
		return slices.ContainsFunc(v, hasNull)
	case map[string]any:
		for _, member := range v {
			if hasNull(member) {
				return true
			}
		}
	}
	return false
}
