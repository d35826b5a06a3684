// Package report says how a person reads the answers of updatectl: as text for a terminal of 80 columns. Each function
// writes one answer of the agent. Nothing here looks at the host or changes it.
package report

import (
	"io"
	"regexp"
	"strings"
	"text/tabwriter"

	"github.com/updatectl/updatectl/verify/printable"
)

// Table returns what text writes, with the cells that tabs separate in columns. Control characters that came from
// outside are shown, so that a terminal does not obey them.
func Table(text func(io.Writer)) (string, error) {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	text(printable.Lines(w))
	err := w.Flush()
	return table.String(), err
}

// Fold returns text with short digests, and no line wider than a terminal. Further lines of a value begin below the
// first one.
func Fold(text string) string {
	var out strings.Builder
	for line := range strings.Lines(ShortDigests(text)) {
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

// ShortDigests returns text with the beginning of each digest, which is enough to tell it apart.
func ShortDigests(text string) string {
	return fullDigest.ReplaceAllStringFunc(text, func(d string) string {
		if strings.HasPrefix(d, "@") {
			return d
		}
		return d[:len(d)-64+shownDigits]
	})
}

// shownDigits is how many hex digits of a digest people read.
const shownDigits = 12

// short returns a root's identity as people read it: enough of the digest to tell roots apart.
func short(root string) string { return ShortDigests(root) }
