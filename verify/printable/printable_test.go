package printable

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for s, want := range map[string]string{
		"Debian 13 (trixie) — größer\tx": "Debian 13 (trixie) — größer\tx",
		"\x1b[2Jgone":                    `\x1b[2Jgone`,
		"a\r\x7f\u0085b":                 `a\x0d\x7f\u0085b`,
		"rtl \u202etxt.exe":              `rtl \u202etxt.exe`,
		"\U000e0041tag":                  `\U000e0041tag`,
		"\xff\xc3":                       `\xff\xc3`,
		"1.0\nhint: run this":            "1.0\n  hint: run this",
		"":                               "",
	} {
		if got := Text(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}

func TestLines(t *testing.T) {
	var out strings.Builder
	w := Lines(&out)
	fmt.Fprintf(w, "\nversion\t%s\n", "1\nsigned by\trelease.pub\x1b]0;x\x07")
	fmt.Fprintf(w, "\n")
	fmt.Fprint(w, "end")
	if want := "\nversion\t1\\nsigned by\trelease.pub\\x1b]0;x\\x07\n\nend"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func FuzzPrintable(f *testing.F) {
	seeds := []string{"a", "\x1b[2J", "\u202e\U000e0041", "a\nb\n", "\xff", `"\u1234"`}
	if len(seeds) == 0 {
		f.Fatal("the corpus is empty")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var line bytes.Buffer
		if n, err := Lines(&line).Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("wrote %d of %d bytes, %v", n, len(s), err)
		}
		document, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		document = JSON(document)
		var back string
		if err := json.Unmarshal(document, &back); err != nil || utf8.ValidString(s) && back != s {
			t.Errorf("JSON of %q is %q, %v", s, back, err)
		}
		for _, out := range []string{Text(s), line.String(), string(document)} {
			for _, r := range out {
				if r != '\n' && r != '\t' && !unicode.IsGraphic(r) {
					t.Errorf("%q of %q has %U", out, s, r)
				}
			}
		}
	})
}
