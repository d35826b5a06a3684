package printable

import (
	"strings"
	"testing"
)

// TestUnwrap: what was folded is as before, and what was not is left alone.
func TestUnwrap(t *testing.T) {
	long := strings.TrimSpace(strings.Repeat("word ", 40))
	path := "/" + strings.Repeat("p", Columns)
	for _, text := range []string{
		"", "a\n", "a\n\nb", long + "\n", "  a\n  b\n", "  version 1\n  root 2\n", long + "\nnext\n",
		long + "\n" + long + "\n",
		"a " + path + "\nb\n",
	} {
		if got := Unwrap(Wrap(text, "    ")); got != text {
			t.Errorf("got %q, want %q", got, text)
		}
	}
	if json := "{\n  \"" + path + "\": {\n    \"b\": 1\n"; Unwrap(json) != json {
		t.Errorf("JSON becomes %q", Unwrap(json))
	}
}
