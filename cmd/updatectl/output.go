package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/printable"
)

// print writes the answer of a command: as one JSON document with its schema, or as text for a person. Whatever of it came
// from outside is shown to a terminal and not obeyed by it.
func (c *cli) print(command string, value any, text func(io.Writer)) error {
	if c.output == "json" {
		return c.printJSON(command, value)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	text(printable.Lines(w))
	return w.Flush()
}

// printJSON puts the schema in front of the fields of value.
func (c *cli) printJSON(command string, value any) error {
	fields, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot write the answer: %w", err)
	}
	body := strings.TrimPrefix(string(printable.JSON(fields)), "{")
	if strings.TrimSpace(body) != "}" {
		body = "," + body
	}
	_, err = fmt.Fprintf(c.stdout, "{\n  \"schema\": \"updatectl.%s/v1\"%s\n", command, body)
	return err
}

// errorAnswer is an error in JSON.
type errorAnswer struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
	Code  int    `json:"exit_code"`
}

// complain writes an error and what to do about it; as JSON it is one document, too.
func (c *cli) complain(err error) {
	advice := hint(err)
	if c.output == "json" {
		c.printJSON("error", errorAnswer{err.Error(), advice, exitCode(err)})
	}
	fmt.Fprintf(c.stderr, "updatectl: %s\n", printable.Text(err.Error()))
	if advice != "" {
		fmt.Fprintf(c.stderr, "hint: %s\n", advice)
	}
}

// short is a root's identity as people read it: enough of the digest to tell roots apart.
func short(root string) string {
	const shown = len("sha256-") + 12
	if len(root) > shown && strings.HasPrefix(root, "sha256-") {
		return root[:shown]
	}
	return root
}

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

// bytesText writes a size the way df -h does, in powers of 1000.
func bytesText(n int64) string {
	const step = 1000
	if n < step {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), 0
	for value >= step && unit < len("kMGT") {
		value /= step
		unit++
	}
	return fmt.Sprintf("%.1f %cB", value, " kMGT"[unit])
}
