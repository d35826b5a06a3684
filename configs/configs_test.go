package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoStartLimit: what every switch that is asked for starts is started as often as somebody asks; systemd's default is five
// times in ten seconds.
func TestNoStartLimit(t *testing.T) {
	for _, unit := range []string{"updatectl-guard.service", "updatectl-arm.service", "updatectl-confirm.service"} {
		if !strings.Contains(Units()[unit], "\nStartLimitIntervalSec=0\n") {
			t.Errorf("%s has a limit", unit)
		}
	}
}

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
