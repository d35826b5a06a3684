package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoStartLimit: every switch starts these units, and somebody may ask for one as often as they like; systemd's
// default limit is five starts in ten seconds.
func TestNoStartLimit(t *testing.T) {
	for _, unit := range []string{"updatectl-guard.service", "updatectl-arm.service", "updatectl-confirm.service"} {
		if !strings.Contains(Units()[unit], "\nStartLimitIntervalSec=0\n") {
			t.Errorf("%s has a limit", unit)
		}
	}
}

// TestNoLocalDocument: no unit names a document on the disk. Units are carried into images, and the documents are not.
func TestNoLocalDocument(t *testing.T) {
	units, err := filepath.Glob("units/*")
	if err != nil || len(units) < 5 {
		t.Fatalf("found the units %v, %v", units, err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "Documentation=") && strings.Contains(line, "file:") {
				t.Errorf("%s: image roots lack %s", unit, strings.TrimSpace(line))
			}
		}
	}
}
