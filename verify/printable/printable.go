// Package printable writes text that came from outside so that a terminal shows it and does not obey it: control
// characters, invalid bytes, and characters that are not seen but change what is (the order of reading, for example)
// come out as escapes, as Go and JSON write them.
package printable

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text escapes what cannot be seen. New lines stay, with an indentation, so that what follows them does not pass for a
// line of ours; tabs stay.
func Text(s string) string { return escape(s, "\n  ") }

// escape escapes all of s that is not graphic; a new line becomes newLine.
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

// JSON escapes what cannot be seen in the strings of a valid JSON document.
func JSON(document []byte) []byte {
	var b bytes.Buffer
	for _, r := range string(document) {
		switch {
		case r < 0x7f || unicode.IsGraphic(r): // valid JSON has escaped the control characters below
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

// Lines returns a writer for text that is written a line at a time: new lines at the ends of what is written in one go
// are ours, one within it came with a value and is escaped like all else that cannot be seen.
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
