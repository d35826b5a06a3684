package printable

import (
	"strings"
	"unicode/utf8"
)

// Columns is the width that text for people must fit into: that of a terminal by default.
const Columns = 80

// Wrap breaks lines that are wider than Columns at spaces, and begins each new line with indent. A word that is too
// wide itself, such as a URL, is alone on its line.
func Wrap(text, indent string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = wrapLine(line, indent)
	}
	return strings.Join(lines, "\n")
}

func wrapLine(line, indent string) string {
	var out strings.Builder
	for utf8.RuneCountInString(line) > Columns {
		at := breakAt(line)
		if at < 0 {
			break
		}
		out.WriteString(strings.TrimRight(line[:at], " ") + "\n")
		line = indent + strings.TrimLeft(line[at:], " ")
	}
	return out.String() + line
}

// breakAt returns the last space at which a line can end within Columns, else the first space after a word, else -1.
func breakAt(line string) int {
	best, column, words := -1, 0, false
	for i, r := range line {
		if r == ' ' && words {
			if best >= 0 && column > Columns {
				break
			}
			best = i
		}
		words = words || r != ' '
		column++
	}
	if best >= 0 && strings.TrimLeft(line[best:], " ") == "" {
		return -1
	}
	return best
}
