package merge3

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	for _, test := range []struct {
		name, base, ours, theirs, want string
		ok                             bool
	}{
		{"nothing changed", "a\nb\n", "a\nb\n", "a\nb\n", "a\nb\n", true},
		{"one side", "a\nb\nc\n", "a\nX\nc\n", "a\nb\nc\n", "a\nX\nc\n", true},
		{"apart", "a\nb\nc\nd\n", "A\nb\nc\nd\n", "a\nb\nc\nD\n", "A\nb\nc\nD\n", true},
		{"neighbors", "a\nb\n", "A\nb\n", "a\nB\n", "", false},
		{"the same line", "a\nb\nc\n", "a\nX\nc\n", "a\nY\nc\n", "", false},
		{"the same change", "a\nb\nc\n", "a\nX\nc\n", "a\nX\nc\n", "a\nX\nc\n", true},
		{"the same change and another", "a\nb\nc\nd\n", "a\nX\nc\nd\n", "a\nX\nc\nD\n", "a\nX\nc\nD\n", true},
		{"both add at the end", "a\n", "a\nX\n", "a\nY\n", "", false},
		{"both add the same at the end", "a\n", "a\nX\n", "a\nX\n", "a\nX\n", true},
		{"removed and changed", "a\nb\nc\n", "a\nc\n", "a\nB\nc\n", "", false},
		{"removed and added elsewhere", "a\nb\nc\n", "b\nc\n", "a\nb\nc\nd\n", "b\nc\nd\n", true},
		{"no end of line", "a\nb\nc", "A\nb\nc", "a\nb\nc\nd\n", "A\nb\nc\nd\n", true},
		{"no end of line any more", "a\nb\n", "a\nb", "a\nb\nc\n", "", false},
		{"other ends of lines", "a\nb\nc\n", "a\r\nb\r\nc\r\n", "a\nb\nC\n", "", false},
		{"from nothing", "", "a\n", "", "a\n", true},
		{"to nothing", "a\n", "", "a\n", "", true},
		{"NUL", "a\nb\nc\n", "a\x00\nb\nc\n", "a\nb\nC\n", "", false},
		{"repeated lines", "}\na\n}\nb\n}\n", "}\na\n}\nb\n}\nc\n}\n", "}\nA\n}\nb\n}\n", "}\nA\n}\nb\n}\nc\n}\n", true},
	} {
		got, ok := Lines([]byte(test.base), []byte(test.ours), []byte(test.theirs))
		if string(got) != test.want || ok != test.ok {
			t.Errorf("%s: %q, %v, want %q, %v", test.name, got, ok, test.want, test.ok)
		}
	}
}

// TestBounds: what is too large is no text, and what differs too much is not compared to the end.
func TestBounds(t *testing.T) {
	large := bytes.Repeat([]byte("x"), MaxText+1)
	if _, ok := Lines(large, large, large); ok {
		t.Error("a file of more than a megabyte was merged")
	}
	var base, ours []byte
	for i := range maxEdits {
		base, ours = fmt.Appendf(base, "%d\n", i), fmt.Appendf(ours, "-%d\n", i)
	}
	if _, ok := Lines(base, ours, append([]byte("a\n"), base...)); ok {
		t.Error("texts with nothing in common were compared to the end")
	}
	if got, ok := Lines(base, append(base, 'z'), append([]byte("a\n"), base...)); !ok || len(got) != len(base)+3 {
		t.Error("a long text with small changes is not merged")
	}
}

// TestRandomLines: pieces that are apart are changed by either side, so that the result is known.
func TestRandomLines(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		var base, ours, theirs, want strings.Builder
		for piece := range 1 + r.IntN(8) {
			was, now := fmt.Sprintf("%d\n", r.IntN(4)), strings.Repeat(fmt.Sprintf("new %d\n", r.IntN(4)), r.IntN(3))
			fixed := fmt.Sprintf("fixed %d\n", piece)
			base.WriteString(was + fixed)
			for _, side := range []struct {
				b       *strings.Builder
				changes bool
			}{{&ours, piece%2 == 0}, {&theirs, piece%2 == 1}, {&want, true}} {
				if side.changes {
					side.b.WriteString(now + fixed)
				} else {
					side.b.WriteString(was + fixed)
				}
			}
		}
		got, ok := Lines([]byte(base.String()), []byte(ours.String()), []byte(theirs.String()))
		if !ok || string(got) != want.String() {
			t.Fatalf("seed %d: %q, %v, want %q", seed, got, ok, want.String())
		}
	}
}

// FuzzLines: no input breaks the laws of a merge.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb\nc\n"), []byte("A\nb\nc\n"), []byte("a\nb\nC\n"))
	f.Add([]byte("a\nb\nc"), []byte("a\n"), []byte("a\nb\nc\n\n\n"))
	f.Add([]byte("}\na\n}\n"), []byte("}\n}\na\n}\n"), []byte("}\na\n}\n}"))
	f.Add([]byte("\x00"), []byte(""), []byte("\r\n"))
	f.Fuzz(func(t *testing.T, base, ours, theirs []byte) {
		merged, ok := Lines(base, ours, theirs)
		other, ok2 := Lines(base, theirs, ours)
		if ok != ok2 || !bytes.Equal(merged, other) {
			t.Errorf("it matters which side is ours: %q, %v and %q, %v", merged, ok, other, ok2)
		}
		for _, side := range [][]byte{ours, theirs} {
			if !IsText(base) || !IsText(side) || len(split(base))+len(split(side)) > maxEdits {
				continue
			}
			if got, ok := Lines(base, side, base); !ok || !bytes.Equal(got, side) {
				t.Errorf("a change of one side becomes %q, %v", got, ok)
			}
			if got, ok := Lines(base, side, side); !ok || !bytes.Equal(got, side) {
				t.Errorf("the same change on both sides becomes %q, %v", got, ok)
			}
		}
		if !ok {
			return
		}
		count := func(text []byte) map[string]int {
			n := map[string]int{}
			for _, line := range split(text) {
				n[line]++
			}
			return n
		}
		b, o, th, m := count(base), count(ours), count(theirs), count(merged)
		for line, n := range m {
			if n > o[line]+th[line] || o[line] == b[line] && th[line] == 0 && b[line] == 0 {
				t.Errorf("%q is %d times in the result, %d and %d times in the sides", line, n, o[line], th[line])
			}
			if !strings.HasSuffix(line, "\n") && !bytes.HasSuffix(merged, []byte(line)) {
				t.Errorf("%q has no end and is not the last line", line)
			}
		}
		for line := range o {
			if b[line] == 0 && m[line] < o[line] {
				t.Errorf("%q was added here, and is lost", line)
			}
		}
	})
}
