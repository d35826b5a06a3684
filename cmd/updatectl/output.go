package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"

	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/printable"
)

// print writes the answer of a command: as one JSON document with its schema, or as text for a person. What came from
// outside is shown to a terminal and not obeyed by it.
func (c *cli) print(command string, value any, text func(io.Writer)) error {
	if c.output == "json" {
		return c.printJSON(command, value)
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	text(printable.Lines(w))
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(c.stdout, c.folded(table.String()))
	return err
}

// folded returns text for people: with short digests, and no line wider than a terminal. Further lines of a value begin
// below the first one.
func (c *cli) folded(text string) string {
	if c.unbroken {
		return text
	}
	var out strings.Builder
	for line := range strings.Lines(shortDigests(text)) {
		line = strings.TrimRight(line, " \n")
		out.WriteString(printable.Wrap(line, strings.Repeat(" ", hangingIndent(line))) + "\n")
	}
	return out.String()
}

// maxIndent is how far to the right further lines of a value may begin, so that there is room for it.
const maxIndent = 36

// hangingIndent returns the column at which the last cell of a table's line begins, within maxIndent. For a sentence,
// it is two columns to the right of where the sentence begins.
func hangingIndent(line string) int {
	indent := len(line) - len(strings.TrimLeft(line, " ")) + len("  ")
	column, spaces := 0, 2
	for _, r := range line {
		if r != ' ' && spaces >= 2 && column > 0 && column <= maxIndent {
			indent = column
		}
		if spaces++; r != ' ' {
			spaces = 0
		}
		column++
	}
	return indent
}

// fullDigest matches a sha256 as it names roots and blobs. One that pins a reference is needed in full.
var fullDigest = regexp.MustCompile(`@?(\bsha256[-:])?\b[0-9a-f]{64}\b`)

// shortDigests returns text with the beginning of each digest, which is enough to tell it apart.
func shortDigests(text string) string {
	return fullDigest.ReplaceAllStringFunc(text, func(d string) string {
		if strings.HasPrefix(d, "@") {
			return d
		}
		return d[:len(d)-64+shownDigits]
	})
}

// shownDigits is how many hex digits of a digest people read.
const shownDigits = 12

// printJSON writes the answer of a command as one JSON document.
func (c *cli) printJSON(command string, value any) error {
	return usage.WriteJSON(c.stdout, "updatectl."+command+"/v1", value)
}

// complain writes an error and what to do about it; as JSON, it is one document, too.
func (c *cli) complain(err error) {
	advice := hint(err)
	if c.output == "json" {
		c.printJSON("error", usage.Failure{Error: err.Error(), Hint: advice, Code: exitCode(err)})
	}
	io.WriteString(c.stderr, c.folded("updatectl: "+printable.Text(err.Error())+"\n"))
	if advice != "" {
		io.WriteString(c.stderr, c.folded("hint: "+advice+"\n"))
	}
}

// short returns a root's identity as people read it: enough of the digest to tell roots apart.
func short(root string) string { return shortDigests(root) }

// signedBy names the signers in a line.
func signedBy(vouchers []verify.Voucher) string {
	var names []string
	for _, v := range vouchers {
		names = append(names, voucherText(v))
	}
	return strings.Join(names, ", ")
}

// voucherText says who signed, in which form, and what proves it.
func voucherText(v verify.Voucher) string {
	details := []string{string(v.Form)}
	if v.Issuer != "" {
		details = append(details, "known to "+v.Issuer)
	}
	if v.Log != (verify.LogEntry{}) {
		details = append(details, v.Log.String())
	}
	if !v.SignedAt.IsZero() {
		details = append(details, "signed "+v.SignedAt.Format("2006-01-02 15:04:05 MST"))
	}
	return fmt.Sprintf("%s (%s)", v.Signer, strings.Join(details, "; "))
}
