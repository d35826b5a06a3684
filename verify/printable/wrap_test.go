package printable

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWrap(t *testing.T) {
	word, digest := strings.Repeat("w", 30), "sha256:"+strings.Repeat("0", 64)
	long := strings.Repeat("l", Columns+1)
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"short", "short"},
		{"two\nlines", "two\nlines"},
		{strings.Repeat("e", Columns), strings.Repeat("e", Columns)},
		{word + " " + word + " " + word, word + " " + word + "\n  " + word},
		{word + " " + word + " " + strings.Repeat("é", 18), word + " " + word + " " + strings.Repeat("é", 18)},
		{"cannot read the image " + digest + ": it has no layer", "cannot read the image\n  " + digest +
			": it\n  has no layer"},
		{"packed " + long + " as an image", "packed\n  " + long + "\n  as an image"},
		{"  " + long, "  " + long},
		{long + "   ", long + "   "},
		{"  name      " + word + "  " + word + "  " + word, "  name      " + word + "  " + word + "\n  " + word},
		{"short\n" + word + " " + word + " " + word, "short\n" + word + " " + word + "\n  " + word},
	} {
		if got := Wrap(c.text, "  "); got != c.want {
			t.Errorf("%q: got\n%s\nwant\n%s", c.text, got, c.want)
		}
	}
}

func FuzzWrap(f *testing.F) {
	seeds := []string{"a b", strings.Repeat("word ", 40), strings.Repeat("x", 100) + " y", " \n  z"}
	if len(seeds) == 0 {
		f.Fatal("the corpus is empty")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := Wrap(text, "  ")
		if a, b := strings.Join(strings.Fields(text), " "), strings.Join(strings.Fields(got), " "); a != b {
			t.Errorf("%q became %q", text, got)
		}
		for line := range strings.SplitSeq(got, "\n") {
			words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' })
			if utf8.RuneCountInString(strings.TrimRight(line, " ")) > Columns && len(words) > 1 {
				t.Errorf("%q is too wide", line)
			}
		}
	})
}
