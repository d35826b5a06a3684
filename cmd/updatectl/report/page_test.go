package report

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// page returns a text as a person sees it.
func page(t *testing.T, text func(io.Writer)) string {
	t.Helper()
	table, err := Table(text)
	if err != nil {
		t.Fatal(err)
	}
	return Fold(table)
}

// golden compares a text with the file that keeps it, as a person sees it.
func golden(t *testing.T, name string, text func(io.Writer)) {
	t.Helper()
	got := page(t, text)
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what is written now (`go test -update` writes it):\n%s", file, got)
	}
}

var update = flag.Bool("update", false, "write the golden files")

// TestFold: further lines of a value begin below it, digests are short, and a reference keeps its digest.
func TestFold(t *testing.T) {
	digest := strings.Repeat("0123456789abcdef", 4)
	words := strings.TrimSpace(strings.Repeat("word ", 20))
	for text, want := range map[string]string{
		"Label  " + words: "Label  " + words[:59],
		"root sha256-" + digest + " of sha256:" + digest: "root sha256-0123456789ab of sha256:0123456789ab\n",
		"os@sha256:" + digest:                            "os@sha256:" + digest + "\n",
	} {
		if got := Fold(text + "\n"); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := Fold("Label  " + words + "\n"); !strings.Contains(got, "\n       word") {
		t.Errorf("got %q", got)
	}
}
