package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocumentation: every unit names a document that is there, in this tree and so where `make install` puts it.
func TestDocumentation(t *testing.T) {
	units, err := filepath.Glob("units/*")
	if err != nil || len(units) < 5 {
		t.Fatalf("found the units %v, %v", units, err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		const installed = "\nDocumentation=file:///usr/share/doc/updatectl/"
		_, after, found := strings.Cut(string(text), installed)
		document, _, _ := strings.Cut(after, "\n")
		if _, err := os.Stat(filepath.Join("..", document)); !found || err != nil {
			t.Errorf("%s: its document is %q: %v", unit, document, err)
		}
	}
}
