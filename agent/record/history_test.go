package record

import (
	"os"
	"path/filepath"
	"testing"
)

// TestAppendLine: a line that was cut short costs itself and not the one that comes next.
func TestAppendLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "history.jsonl")
	for _, line := range []string{"one", "two"} {
		if err := appendLine(file, []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(file, int64(len("one\ntw"))); err != nil {
		t.Fatal(err)
	}
	if err := appendLine(file, []byte("three")); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "one\ntw\nthree\n" {
		t.Errorf("the file is %q, %v", text, err)
	}
}
