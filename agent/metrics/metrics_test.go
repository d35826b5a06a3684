package metrics

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// full is a host about which everything is known.
var full = Host{
	Version: "2026.11", Root: "sha256-" + strings.Repeat("0123456789abcdef", 4), Kernel: "6.12.48+deb13-amd64",
	Phase: "staged", Level: "soft", Staged: true, Paused: true, LastEnded: time.Unix(1796000000, 0), LastSucceeded: true,
	LastOutage: 2500 * time.Millisecond, Checked: time.Unix(1796003600, 0), Blocked: "window", SlotHeld: true,
	SlotKept: true, FixesOpen: 3, LivePatches: map[string]int{"effective": 1, "not loaded": 2},
	RebootBy: time.Unix(1798000000, 0), BadRoots: 1,
	Images: map[string]Image{"booted": {1 << 30, 200 << 20}, "staged": {1 << 30, 0}},
}

// TestText: the text is what is in testdata, which `promtool check metrics` accepts as well.
func TestText(t *testing.T) {
	for file, h := range map[string]Host{
		"testdata/full.prom": full,
		"testdata/new.prom":  {Root: "host", Kernel: "6.12.48", Phase: "idle"},
	} {
		got, err := Text(h)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s: the text is\n%s", file, got)
		}
		problems, err := promlint.New(strings.NewReader(string(got))).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("%s: the rules of Prometheus: %v, %v", file, problems, err)
		}
	}
}

// TestLabels: whatever an image calls itself, a line of the text stays a line of bounded length.
func TestLabels(t *testing.T) {
	for _, version := range []string{
		"\x1b[31m", "a\nupdatectl_staged 1", "\xff\xfe", "\u202e", `"} 1`, strings.Repeat("\x00", 1000),
		strings.Repeat("é", 1000), "a" + strings.Repeat("é", 1000),
	} {
		text, err := Text(Host{
			Version: version, Phase: version, Level: version, Blocked: version, LivePatches: map[string]int{version: 1},
		})
		if err != nil {
			t.Errorf("%.40q: %v", version, err)
			continue
		}
		for line := range strings.Lines(string(text)) {
			if len(line) > 300 || !utf8.ValidString(line) || strings.ContainsAny(line, "\x00\x1b\u202e\ufffd") {
				t.Errorf("%.40q: the line %q", version, line)
			}
		}
		if n := strings.Count(string(text), "\nupdatectl_staged "); n != 1 {
			t.Errorf("%.40q: the series updatectl_staged is there %d times", version, n)
		}
		if l := label(version); len(l) > maxLabel {
			t.Errorf("%.40q: the label has %d bytes", version, len(l))
		}
	}
}

// names returns the names of all metrics.
func names(t *testing.T) []string {
	t.Helper()
	families, err := Registry(full).Gather()
	if err != nil || len(families) < 10 {
		t.Fatalf("%d metrics: %v", len(families), err)
	}
	var list []string
	for _, f := range families {
		list = append(list, f.GetName())
	}
	return list
}

var metricName = regexp.MustCompile(`\bupdatectl_[a-z_]+`)

// TestExamples: the examples and the page name metrics that exist, and the page names all of them.
func TestExamples(t *testing.T) {
	known := names(t)
	for file, least := range map[string]int{
		"../../configs/examples/prometheus/updatectl-alerts.yml":     6,
		"../../configs/examples/prometheus/updatectl-dashboard.json": 6,
		"../../docs/metrics.md": len(known),
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := metricName.FindAllString(string(text), -1)
		slices.Sort(found)
		found = slices.Compact(found)
		for _, name := range found {
			if !slices.Contains(known, name) {
				t.Errorf("%s names %s, which is no metric", file, name)
			}
		}
		if len(found) < least {
			t.Errorf("%s names %v only", file, found)
		}
		if strings.HasSuffix(file, ".json") && !json.Valid(text) {
			t.Errorf("%s is not JSON", file)
		}
	}
}
