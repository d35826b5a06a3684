package pid1

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRebootOnPanic: a host that halts on a panic reboots while a switch is watched; a setting of its own stays.
func TestRebootOnPanic(t *testing.T) {
	for name, c := range map[string]struct{ before, during, set, after string }{
		"nothing set":               {"0\n", "10", "", "0\n"},
		"the host has its own rule": {"30\n", "30\n", "", "30\n"},
		"the new root set one":      {"0\n", "10", "5\n", "5\n"},
		"it wants to halt, too":     {"0\n", "10", "0\n", "0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "panic")
			write := func(text string) {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			expect := func(when, want string) {
				if got, err := os.ReadFile(file); err != nil || string(got) != want {
					t.Errorf("%s it is %q (%v), want %q", when, got, err, want)
				}
			}
			write(c.before)
			restore := rebootOnPanic(file)
			expect("during the switch", c.during)
			if c.set != "" {
				write(c.set)
			}
			restore()
			expect("after it", c.after)
		})
	}
}
