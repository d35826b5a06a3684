package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/docker/go-units"

	"github.com/updatectl/updatectl/verify/printable"
)

// output is where answers, talk and errors go.
type output struct {
	stdout, stderr io.Writer
	format         string
	quiet          bool
	started        bool // the command itself runs; what fails before is usage
	answered       bool // stdout has the answer
}

func (o *output) check() error {
	if o.format != "text" && o.format != "json" {
		return fmt.Errorf("--output is %q: use text or json", o.format)
	}
	return nil
}

// answer writes the answer: v as one JSON document, or what text prints.
func (o *output) answer(v any, text func(w io.Writer)) error {
	o.answered = true
	if o.format != "json" {
		text(printable.Lines(wrapped{o.stdout}))
		return nil
	}
	document, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot write the answer: %w", err)
	}
	_, err = fmt.Fprintf(o.stdout, "%s\n", printable.JSON(document))
	return err
}

// talk says what is going on.
func (o *output) talk(format string, args ...any) {
	if !o.quiet {
		fmt.Fprintf(printable.Lines(wrapped{o.stderr}), format+"\n", args...)
	}
}

// errorAnswer is an error in JSON.
type errorAnswer struct {
	Schema string `json:"schema"`
	Error  string `json:"error"`
	Hint   string `json:"hint,omitempty"`
	Code   int    `json:"exit_code"`
}

// fail reports an error and what to do about it. As JSON, it is one document, too, unless the answer is that document.
func (o *output) fail(err error) {
	if err == nil {
		return
	}
	advice := hint(err)
	if o.format == "json" && !o.answered {
		_ = o.answer(errorAnswer{"releasectl.error/v1", err.Error(), advice, exitCode(err)}, nil) // stderr has it, too
	}
	w := wrapped{o.stderr}
	fmt.Fprintf(w, "releasectl: %s\n", printable.Text(err.Error()))
	if advice != "" {
		fmt.Fprintf(w, "hint: %s\n", advice)
	}
}

const (
	// indent begins what belongs to the line above.
	indent = "  "
	// nameWidth is that of the names before values.
	nameWidth = len("livepatch")
)

// wrapped breaks lines that are written to it to the width of a terminal.
type wrapped struct{ w io.Writer }

func (w wrapped) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.w, printable.Wrap(string(p), indent)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// lines returns how to print a name and its value, if there is one. More lines of the value stand below the first.
func lines(w io.Writer) func(name, value string) {
	return func(name, value string) {
		if value == "" {
			return
		}
		below := strings.Repeat(" ", len(indent)+nameWidth+1)
		for line := range strings.SplitSeq(value, "\n") {
			text := printable.Wrap(fmt.Sprintf("%s%-*s %s", indent, nameWidth, name, line), below)
			for part := range strings.SplitSeq(text, "\n") {
				fmt.Fprintln(w, part)
			}
			name = "" // of the first line only
		}
	}
}

// size writes a number of bytes for people.
func size(bytes int64) string { return units.HumanSize(float64(bytes)) }

// count writes a number of things.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
