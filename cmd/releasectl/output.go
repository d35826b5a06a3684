package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/updatectl/updatectl/verify/printable"
)

// output is where answers, talk and errors go.
type output struct {
	stdout, stderr io.Writer
	format         string
	quiet          bool
	started        bool // the command itself runs; what fails before is usage
}

func (o *output) check() error {
	if o.format != "text" && o.format != "json" {
		return fmt.Errorf("--output is %q: use text or json", o.format)
	}
	return nil
}

// answer writes the answer: v as one JSON document, or what text prints.
func (o *output) answer(v any, text func(w io.Writer)) error {
	if o.format != "json" {
		text(printable.Lines(o.stdout))
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
		fmt.Fprintf(printable.Lines(o.stderr), format+"\n", args...)
	}
}

// fail tells of an error and what to do about it.
func (o *output) fail(err error) {
	if err == nil {
		return
	}
	fmt.Fprintf(o.stderr, "releasectl: %s\n", printable.Text(err.Error()))
	if h := hint(err); h != "" {
		fmt.Fprintf(o.stderr, "hint: %s\n", h)
	}
}
