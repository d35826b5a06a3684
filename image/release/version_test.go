package release

import (
	"cmp"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// ascending versions, each older than the next.
var ascending = []string{
	"~rc1", "", "rc1", "v1", "v2", "v10", "0", "1.0~", "1.0~~", "1.0~rc1", "1.0~rc1-2", "1.0", "1.0-1", "1.0-1.1",
	"1.0-2", "1.0^post", "1.0.a", "1.0.0",
	"1.0.1", "1.0a", "1.1", "1.9", "1.10", "24.04.3", "122.1", "2026.6", "2026.11.1", "2026.11.10", "20261101",
}

var equal = [][2]string{{"1.0", "1.00"}, {"01", "1"}, {"1_2", "1+2"}, {"a", "a"}, {"1.0 ", "1.0"}, {"ä1", "1"},
	{"1--", "1--"}}

func TestCompare(t *testing.T) {
	for i, a := range ascending {
		for j, b := range ascending {
			if got, want := Compare(a, b), cmp.Compare(i, j); got != want {
				t.Errorf("Compare(%q, %q) = %d, want %d", a, b, got, want)
			}
		}
	}
	for _, e := range equal {
		if Compare(e[0], e[1]) != 0 || Compare(e[1], e[0]) != 0 {
			t.Errorf("%q and %q are not equal", e[0], e[1])
		}
	}
}

// TestCompareAgreesWithSystemd compares with systemd-analyze, for versions that are in use.
func TestCompareAgreesWithSystemd(t *testing.T) {
	wild := []string{
		"1.0~rc1", "1.0", "1.0-1", "1.0^1", "1.0.1", "123a", "123.a", "123-a",
		"5.11.0-0.rc5.20210128git76c057d54d28.137.fc34",
		"247.2-3.1.fc33", "6.12.48+deb13", "6.12.48_deb13", "2026.11.1", "v2", "2", "00123", "1..2", "1.-2", "a~b",
		"1~", "1^~2", "~", "-", "1-^.2",
	}
	want := map[int]int{0: 0, 11: 1, 12: -1} // exit codes of systemd-analyze compare-versions
	for i, a := range wild {
		for _, b := range wild[i:] {
			err := exec.Command("systemd-analyze", "compare-versions", "--", a, b).Run()
			var exit *exec.ExitError
			code := 0
			if errors.As(err, &exit) {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			order, known := want[code]
			if !known {
				t.Fatalf("systemd-analyze ended with %d", code)
			}
			if got := Compare(a, b); got != order {
				t.Errorf("Compare(%q, %q) = %d, systemd says %d", a, b, got, order)
			}
		}
	}
}

func TestOrdered(t *testing.T) {
	for version, want := range map[string]bool{
		"24.1": true, "v2": true, "20261101": true, "1.0~rc1": true, "3-1": true, "7": true,
		"": false, "trixie": false, "3fa9c27": false, "latest": false, "v": false, "1a": false,
		strings.Repeat("1", maxWord+1): false,
	} {
		if Ordered(version) != want {
			t.Errorf("Ordered(%q) is not %v", version, want)
		}
	}
}

func FuzzCompare(f *testing.F) {
	if len(ascending) == 0 {
		f.Fatal("no seeds")
	}
	for i, a := range ascending {
		f.Add(a, ascending[len(ascending)-1-i], "1.0")
	}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if Compare(a, a) != 0 {
			t.Errorf("%q differs from itself", a)
		}
		ab, bc, ac := Compare(a, b), Compare(b, c), Compare(a, c)
		if ab != -Compare(b, a) {
			t.Errorf("%q and %q: %d, and %d the other way round", a, b, ab, Compare(b, a))
		}
		if ab <= 0 && bc <= 0 && ac > 0 {
			t.Errorf("%q <= %q <= %q, and the first is newer than the last", a, b, c)
		}
	})
}
