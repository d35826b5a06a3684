package level

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/facts"
)

var update = flag.Bool("update", false, "write the golden files")

// system is a distribution as a host and as an image.
type system struct {
	name  string
	Host  facts.Facts `json:"host"`
	Image Target      `json:"image"`
}

// systems reads testdata/facts: what the distributions' own layouts, kernels and policies come to as facts.
func systems(t *testing.T) map[string]system {
	t.Helper()
	files, err := filepath.Glob("testdata/facts/*.json")
	if err != nil || len(files) < 8 {
		t.Fatalf("found %d facts files only, %v", len(files), err)
	}
	all := map[string]system{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s := system{name: strings.TrimSuffix(filepath.Base(file), ".json")}
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&s); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[s.name] = s
	}
	return all
}

// TestDistributions runs the table over hosts and images of other distributions, to and from Debian 13.
func TestDistributions(t *testing.T) {
	all := systems(t)
	for name, pairs := range map[string]func(other system) (from, to system){
		"from-debian-13":      func(s system) (system, system) { return all["debian-13"], s },
		"from-debian-13-luks": func(s system) (system, system) { return all["debian-13-luks"], s },
		"to-debian-13":        func(s system) (system, system) { return s, all["debian-13"] },
		"to-itself":           func(s system) (system, system) { return s, s },
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			for _, other := range slices.Sorted(maps.Keys(all)) {
				from, to := pairs(all[other])
				d := Decide(from.Host, to.Image)
				fmt.Fprintf(&out, "%s -> %s: %s\n", from.name, to.name, d.Level)
				for _, c := range d.Checks {
					fmt.Fprintf(&out, "  %-6s %s: %s\n", c.Verdict, c.Name, c.Reason)
				}
			}
			golden(t, filepath.Join("testdata", name+".golden"), out.String())
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
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
		t.Errorf("%s is not what the checks say now (`go test -update` writes it):\n%s", file, got)
	}
}
