package main

import (
	"io"

	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/verify/printable"
)

// print writes the answer of a command: as one JSON document with its schema, or as text for a person.
func (c *cli) print(command string, value any, text func(io.Writer)) error {
	if c.output == "json" {
		return c.printJSON(command, value)
	}
	table, err := report.Table(text)
	if err != nil {
		return err
	}
	_, err = io.WriteString(c.stdout, c.folded(table))
	return err
}

// folded returns text as people read it at a terminal, unless the journal reads it.
func (c *cli) folded(text string) string {
	if c.unbroken {
		return text
	}
	return report.Fold(text)
}

// printJSON writes the answer of a command as one JSON document.
func (c *cli) printJSON(command string, value any) error {
	return usage.WriteJSON(c.stdout, "updatectl."+command+"/v1", value)
}

// complain writes an error and what to do about it; as JSON, it is one document, too.
func (c *cli) complain(err error) {
	advice := hint(err)
	if c.output == "json" {
		c.printJSON("error", usage.Failure{Error: err.Error(), Reason: reason(err), Hint: advice, Code: exitCode(err)})
	}
	io.WriteString(c.stderr, c.folded("updatectl: "+printable.Text(err.Error())+"\n"))
	if advice != "" {
		io.WriteString(c.stderr, c.folded("hint: "+advice+"\n"))
	}
}
