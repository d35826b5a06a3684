// Package printable makes text from outside safe to print on a terminal. Control characters, invalid bytes, and
// invisible characters that change what is shown (such as the direction of writing) are written as escapes, as in Go
// and JSON.
package printable

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text escapes invisible characters, except tabs and new lines. The line after a new line is indented, so that it does
// not look like a line of our own.
func Text(s string) string { return escape(s, "\n  ") }

// escape escapes all characters that are not graphic. A new line becomes newLine.
func escape(s, newLine string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\n':
			b.WriteString(newLine)
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\t' || unicode.IsGraphic(r):
			b.WriteString(s[i : i+n])
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += n
	}
	return b.String()
}

// JSON escapes invisible characters in the strings of a valid JSON document.
func JSON(document []byte) []byte {
	var b bytes.Buffer
	for _, r := range string(document) {
		switch {
		case r < 0x7f || unicode.IsGraphic(r): // valid JSON escapes the control characters below that
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
	}
	return b.Bytes()
}

// Lines returns a writer that escapes invisible characters. Each call of Write must be for one line: new lines at its
// ends are kept, and one inside it, which comes from a value, is escaped.
func Lines(w io.Writer) io.Writer { return lines{w} }

type lines struct{ w io.Writer }

// Write escapes and writes a line.
func (l lines) Write(p []byte) (int, error) {
	s := string(p)
	body := strings.Trim(s, "\n")
	before, after, _ := strings.Cut(s, body)
	if body == "" {
		before, after = s, ""
	}
	if _, err := io.WriteString(l.w, before+escape(body, `\n`)+after); err != nil {
		return 0, err
	}
	return len(p), nil
}
