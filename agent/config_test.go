package agent

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/configs"
	"github.com/updatectl/updatectl/switcher/facts"
)

func writeFile(t *testing.T, root, name, text string) string {
	t.Helper()
	p := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// below is the path of a file in the tree at root.
func below(root string) func(string) string { return facts.Machine{Root: root}.Path }

func TestConfigFragmentsOverrideInOrder(t *testing.T) {
	root := t.TempDir()
	writeFile(t, root, "usr/lib/updatectl/conf.d/10-vendor.toml", "[source]\nimage = 'vendor'\n[verify]\nthreshold = 2\n")
	writeFile(t, root, "etc/updatectl/updatectl.toml", "[source]\nimage = 'host'\n[health]\ndeadline = '90s'\n")
	writeFile(t, root, "etc/updatectl/conf.d/20-b.toml", "[switch]\nlevel = 'soft'\n")
	writeFile(t, root, "etc/updatectl/conf.d/10-a.toml", "[switch]\nlevel = 'full'\n")
	writeFile(t, root, "run/updatectl/conf.d/x.toml", "[state]\npersist = ['/var', '/data']\n")
	c, err := LoadConfig(below(root), "")
	if err != nil {
		t.Fatal(err)
	}
	if c.Source.Image != "host" || c.Verify.Threshold != 2 || c.Switch.Level != "soft" || time.Duration(c.Health.Deadline) != 90*time.Second {
		t.Errorf("merged to %+v", c)
	}
	if time.Duration(c.LivePatch.Deadline) != 45*time.Second {
		t.Errorf("no file names the deadline of live patches, and it is %v", time.Duration(c.LivePatch.Deadline))
	}
	if !slices.Equal(c.State.Persist, []string{"/var", "/data"}) || len(c.Files) != 5 {
		t.Errorf("persist %v, files %v", c.State.Persist, c.Files)
	}
}

func TestConfigComplaints(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":         {"[source]\nimage = 'x'\nimgae = 'y'\n", "updatectl.toml:3: unknown key source.imgae; known here: image, mirrors, plain-http, compatible"},
		"unknown table":       {"[sauce]\nimage = 'x'\n", "updatectl.toml:1: unknown key sauce; known here: source, verify, state, switch, livepatch, health\n"},
		"unknown top-level":   {"image = 'x'\n", "updatectl.toml:1: unknown key image"},
		"syntax":              {"[source]\nimage = 'x\n", "updatectl.toml:2:"},
		"wrong type":          {"[verify]\nthreshold = 'two'\n", "updatectl.toml:2: verify.threshold: incompatible types"},
		"bad duration":        {"[health]\ndeadline = '5 parsecs'\n", "updatectl.toml:2: health.deadline: time: unknown unit"},
		"zero duration":       {"[health]\ndeadline = '0s'\n", "more than zero"},
		"mirror":              {"[source]\nmirrors = ['mirror.example.org/os', 'oci:/mnt/usb:stable']\n", "[source] mirrors: bad image reference \"mirror.example.org/os\""},
		"machine class":       {"[source]\ncompatible = 'two words'\n", "[source] compatible: it is not a machine class"},
		"port":                {"[health]\nports = ['udp:53']\n", `updatectl.toml:2: [health] ports: "udp:53" is no port`},
		"live patch deadline": {"[livepatch]\ndeadline = '5m'\n", "[livepatch] deadline is 5m0s and must be less than [health] deadline, 5m0s: a live patch that stalls"},
		"level":               {"[switch]\nlevel = 'warm'\n", "updatectl.toml:2: [switch] level: "},
		"many": {"[switch]\nlevel = 'soft'\nstuck = 'maybe'\n[verify]\nthreshold = 0\n[state]\npersist = ['/home']\n",
			"updatectl.toml:3: [switch] stuck is \"maybe\" and must be cancel or escalate\nthe configuration is not valid: ROOT/etc/updatectl/updatectl.toml:5: [verify] threshold is 0 and must be at least 1\nthe configuration is not valid: ROOT/etc/updatectl/updatectl.toml:7: [state] persist must contain /var"},
		"fallback":             {"[switch]\nfallback = 'soft'\n", "[switch] fallback: cannot use \"soft\": it is one of refuse, full"},
		"kernel age":           {"[switch]\nmax-kernel-age = '90d'\n", "updatectl.toml:2: switch.max-kernel-age: time: unknown unit"},
		"threshold":            {"[verify]\nthreshold = 0\n", "at least 1"},
		"relative path":        {"[state]\npersist = ['/var', 'home']\n", `"home" is not a clean absolute path`},
		"path of the image":    {"[state]\npersist = ['/var', '/usr']\n", "/usr cannot belong to the host"},
		"persist without /var": {"[state]\npersist = ['/home']\n", "must contain /var"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			writeFile(t, root, "etc/updatectl/updatectl.toml", c.text)
			_, err := LoadConfig(below(root), "")
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error()+"\n", strings.ReplaceAll(c.want, "ROOT", root)) {
				t.Errorf("LoadConfig: %v; want ErrConfig with %q", err, c.want)
			}
		})
	}
	if _, err := LoadConfig(below("/"), filepath.Join(t.TempDir(), "none.toml")); !errors.Is(err, ErrConfig) {
		t.Errorf("a named file that is missing: %v", err)
	}
}

// TestUsableConfig: what brings a host home goes on with what can be used.
func TestUsableConfig(t *testing.T) {
	root := t.TempDir()
	writeFile(t, root, "etc/updatectl/updatectl.toml", "[health]\ndeadline = '7m'\n[switch]\nof-a-newer-agent = true\nstuck = 'escalate'\n")
	writeFile(t, root, "etc/updatectl/conf.d/10-typo.toml", "[health]\ndeadline = '9m\n")
	writeFile(t, root, "etc/updatectl/conf.d/20-value.toml", "[switch]\nlevel = 'warm'\n")
	writeFile(t, root, "etc/updatectl/conf.d/30-good.toml", "[health]\nsettle = '3s'\n")
	writeFile(t, root, recordFile, `{"phase":"good","good":["host","v1"],"state":{"persist":["/var","/data"]}}`)
	if _, err := New(root, "", zap.NewNop()); !errors.Is(err, ErrConfig) {
		t.Errorf("New: %v, want ErrConfig", err)
	}
	a, err := NewAnyway(root, "", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Config.State.Persist; !slices.Equal(got, []string{"/var", "/data"}) {
		t.Errorf("the state is %v, not that of the last good root", got)
	}
	want := DefaultConfig()
	want.Health.Deadline, want.Health.Settle, want.Switch.Stuck = Duration(7*time.Minute), Duration(3*time.Second), stuckEscalate
	if !reflect.DeepEqual(a.Config.Health, want.Health) || a.Config.Switch != want.Switch || a.fault == nil {
		t.Errorf("what is used is %+v (fault %v)", a.Config, a.fault)
	}
}

// TestShippedConfig: the commented file is valid, holds the defaults, and its examples are valid when uncommented.
func TestShippedConfig(t *testing.T) {
	c := DefaultConfig()
	if err := c.decode("shipped", configs.Example()); err != nil {
		t.Fatal(err)
	}
	if err := c.validate(); err != nil {
		t.Error(err)
	}
	d := DefaultConfig()
	if !slices.Equal(c.State.Persist, d.State.Persist) || !slices.Equal(c.State.ImageOwned, d.State.ImageOwned) || !reflect.DeepEqual(c.Health, d.Health) || c.Switch != d.Switch {
		t.Errorf("the shipped file says %+v, the defaults are %+v", c, d)
	}
	var examples []string
	for line := range strings.Lines(configs.Example()) {
		if strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "# ") {
			line = line[1:]
			examples = append(examples, line)
		}
	}
	if len(examples) < 4 {
		t.Fatalf("found %d examples only", len(examples))
	}
	text := configs.Example()
	for _, e := range examples {
		text = strings.Replace(text, "#"+e, e, 1)
	}
	if err := c.decode("shipped, uncommented", text); err != nil {
		t.Error(err)
	}
}

func FuzzConfig(f *testing.F) {
	seeds := []string{configs.Example(), "[source]\nimage = 'x'\n", "[[source]]\n", "a.b.c = {d = 1}\n", "[health]\ndeadline = 5\n"}
	if len(seeds) == 0 || len(seeds[0]) == 0 {
		f.Fatal("the corpus is empty")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := DefaultConfig()
		if err := c.decode("fuzz", text); err != nil && !errors.Is(err, ErrConfig) {
			t.Errorf("decode: %v is not ErrConfig", err)
		}
	})
}
