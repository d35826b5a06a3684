package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/updatectl/updatectl/cmd/usage"
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

// answer writes the answer of a command: as one JSON document with its schema, or as what text prints.
func (o *output) answer(command string, value any, text func(w io.Writer)) error {
	o.answered = true
	if o.format == "json" {
		return usage.WriteJSON(o.stdout, "releasectl."+command+"/v1", value)
	}
	text(printable.Lines(wrapped{o.stdout}))
	return nil
}

// talk says what is going on.
func (o *output) talk(format string, args ...any) {
	if !o.quiet {
		fmt.Fprintf(printable.Lines(wrapped{o.stderr}), format+"\n", args...)
	}
}

// fail reports an error and what to do about it. As JSON, it is one document, too, unless the answer is that document.
func (o *output) fail(err error) {
	if err == nil {
		return
	}
	advice := hint(err)
	if o.format == "json" && !o.answered {
		// stderr has it, too, if it cannot be written
		_ = o.answer("error", usage.Failure{Error: err.Error(), Hint: advice, Code: exitCode(err)}, nil)
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
