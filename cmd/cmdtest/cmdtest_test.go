package cmdtest

import (
	"strings"
	"testing"

	"github.com/updatectl/updatectl/verify/printable"
)

func TestTooWide(t *testing.T) {
	word := strings.Repeat("x", printable.Columns+1)
	for text, want := range map[string]int{
		"":                                     0,
		strings.Repeat("x ", 40) + "\n":        0,
		strings.Repeat("x ", 41) + "\n":        1,
		strings.Repeat("ü ", 40):               0,
		word + "\n  " + word + "\n":            0,
		"a " + word + "\nb\n" + word + " c\n":  2,
		"image = \"" + strings.Repeat("x", 80): 0,
	} {
		if got := TooWide(text); len(got) != want {
			t.Errorf("%q: got %q, want %d", text, got, want)
		}
	}
}
