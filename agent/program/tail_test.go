package program

import (
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	var out tail
	long := strings.Repeat("a line of the past\n", 1000)
	for _, p := range []string{long, "the last but one\n", "the end"} {
		if n, err := out.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	got := out.String()
	if len(got) > KeptOutput || !strings.HasPrefix(got, "a line") || !strings.HasSuffix(got, "one\nthe end") {
		t.Errorf("kept %d bytes: %.40q … %q", len(got), got, got[len(got)-40:])
	}
	var short tail
	if short.Write([]byte("only\nthis\n")); short.String() != "only\nthis\n" {
		t.Errorf("kept %q", short.String())
	}
}
