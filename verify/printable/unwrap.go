package printable

import (
	"strings"
	"unicode/utf8"
)

// Unwrap joins the lines that [Wrap] broke, for those who look for a sentence in what a command printed: a line joins
// the one before if its first word did not fit there, and if it is indented more than where the sentence began, as
// much as the lines that were joined already.
func Unwrap(text string) string {
	if strings.HasPrefix(text, "{") { // JSON
		return text
	}
	var out strings.Builder
	start, below, before := 0, 0, 0 // indents of the sentence and of its further lines, columns of the line before
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		words := strings.Fields(line)
		indent := len(line) - len(strings.TrimLeft(line, " "))
		columns := utf8.RuneCountInString(line)
		row := indent == len("  ") && strings.Contains(line[indent:], "  ") // of a table below the sentence
		if len(words) > 0 && before > 0 && indent > start && (below == 0 || indent == below) && !row &&
			before+len(" ")+utf8.RuneCountInString(words[0]) > Columns {
			out.WriteString(" " + line[indent:])
			below = indent
		} else {
			if out.Len() > 0 {
				out.WriteString("\n")
			}
			out.WriteString(line)
			start, below = indent, 0
		}
		before = columns
	}
	if strings.HasSuffix(text, "\n") {
		out.WriteString("\n")
	}
	return out.String()
}
