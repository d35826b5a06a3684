package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/configs"
	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/testtree"
	"github.com/updatectl/updatectl/verify/printable"
)

// below returns the function that maps a path of the host to its path in the tree at root.
func below(root string) func(string) string { return facts.Machine{Root: root}.Path }

func TestConfigFragmentsOverrideInOrder(t *testing.T) {
	root := t.TempDir()
	testtree.File(t, root, "usr/lib/updatectl/conf.d/10-vendor.toml",
		"[source]\nimage = 'vendor'\n[verify]\nthreshold = 2\n")
	testtree.File(t, root, "etc/updatectl/updatectl.toml", "[source]\nimage = 'host'\n[health]\ndeadline = '90s'\n")
	testtree.File(t, root, "etc/updatectl/conf.d/20-b.toml", "[switch]\nlevel = 'soft'\n")
	testtree.File(t, root, "etc/updatectl/conf.d/10-a.toml", "[switch]\nlevel = 'full'\n")
	testtree.File(t, root, "run/updatectl/conf.d/x.toml", "[state]\npersist = ['/var', '/data']\n")
	c, err := Load(below(root), "")
	if err != nil {
		t.Fatal(err)
	}
	if c.Source.Image != "host" || c.Verify.Threshold != 2 || c.Switch.Level != "soft" ||
		time.Duration(c.Health.Deadline) != 90*time.Second {
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
		"unknown key": {"[source]\nimage = 'x'\nimgae = 'y'\n",
			"updatectl.toml:3: unknown key source.imgae; known here: image, mirrors, plain-http, min-rate, max-rate, " +
				"fetch-deadline, compatible"},
		"unknown table": {"[sauce]\nimage = 'x'\n",
			"updatectl.toml:1: unknown key sauce; known here: source, verify, store, state, switch, boot, livepatch, health, " +
				"keep, " +
				"schedule, fleet, rollout, fleetlock, hooks, metrics\n"},
		"unknown top-level": {"image = 'x'\n", "updatectl.toml:1: unknown key image"},
		"syntax":            {"[source]\nimage = 'x\n", "updatectl.toml:2:"},
		"wrong type":        {"[verify]\nthreshold = 'two'\n", "updatectl.toml:2: verify.threshold: incompatible types"},
		"bad duration": {"[health]\ndeadline = '5 parsecs'\n",
			"updatectl.toml:2: health.deadline: time: unknown unit"},
		"bare duration": {"[health]\ndeadline = 5m # minutes\n", "; durations are quoted: \"5m\""},
		"two faults": {"[health]\nlevel = 3\n[switch]\nlevel = 'x'\n",
			"unknown key health.level; known here: deadline, check-deadline, settle, active, ports, reachable, ignore\n" +
				"the configuration is not valid: "},
		"zero duration": {"[health]\ndeadline = '0s'\n", "more than zero"},
		"mirror": {"[source]\nmirrors = ['mirror.example.org/os', 'oci:/mnt/usb:stable']\n",
			"[source] mirrors: bad image reference \"mirror.example.org/os\""},
		"machine class": {"[source]\ncompatible = 'two words'\n", "[source] compatible: it is not a machine class"},
		"port":          {"[health]\nports = ['udp:53']\n", `updatectl.toml:2: [health] ports: "udp:53" is not a port`},
		"live patch deadline": {"[livepatch]\ndeadline = '5m'\n",
			"[livepatch] deadline is 5m0s and must be less than [health] deadline, 5m0s: a live patch that stalls"},
		"max rate": {"[source]\nmax-rate = '10KiB'\n",
			"updatectl.toml:2: [source] max-rate is 10KiB and must be at least 64KiB"},
		"level": {"[switch]\nlevel = 'warm'\n", "updatectl.toml:2: [switch] level: "},
		"many": {"[switch]\nlevel = 'soft'\nstuck = 'maybe'\n[verify]\nthreshold = 0\n[state]\npersist = ['/home']\n",
			"updatectl.toml:3: [switch] stuck is \"maybe\" and must be cancel or escalate\n" +
				"the configuration is not valid: ROOT/etc/updatectl/updatectl.toml:5: [verify] threshold is 0 " +
				"and must be at least 1\n" +
				"the configuration is not valid: ROOT/etc/updatectl/updatectl.toml:7: [state] persist must contain /var"},
		"fallback": {"[switch]\nfallback = 'soft'\n",
			"[switch] fallback is \"soft\" and must be refuse or full"},
		"kernel age": {"[switch]\nmax-kernel-age = '90d'\n",
			"updatectl.toml:2: switch.max-kernel-age: time: unknown unit"},
		"threshold":         {"[verify]\nthreshold = 0\n", "at least 1"},
		"relative path":     {"[state]\npersist = ['/var', 'home']\n", `"home" is not a clean absolute path`},
		"path of the image": {"[state]\npersist = ['/var', '/usr']\n", "/usr cannot belong to the host"},
		"below /etc": {"[state]\npersist = ['/var', '/etc/letsencrypt']\n",
			"updatectl.toml:2: [state] persist: /etc/letsencrypt cannot belong to the host: every root has its own /etc, " +
				"into which changes are merged; use [state] adopt"},
		"below /usr":  {"[state]\npersist = ['/var', '/usr/local']\n", "move the data to /srv or /var"},
		"below /boot": {"[state]\npersist = ['/var', '/boot/efi']\n", "what is in /boot comes from the image or"},
		"below /run":  {"[state]\npersist = ['/var', '/run/app']\n", "/run comes from the kernel or is gone"},
		"below the roots": {"[state]\npersist = ['/var', '/var/lib/updatectl/roots/x']\n",
			"updatectl keeps /var/lib/updatectl with /var; take it out"},
		"image-owned /var": {"[state]\nimage-owned = ['/var']\n",
			"updatectl.toml:2: [state] image-owned: /var cannot come from the image: the roots and the record are in"},
		"image-owned roots": {"[state]\nimage-owned = ['/var/lib/updatectl/roots']\n", "cannot come from the image"},
		"image-owned /etc": {"[state]\nimage-owned = ['/etc/app']\n",
			"[state] image-owned: /etc/app is not below a directory of [state] persist; take it out"},
		"both": {"[state]\npersist = ['/var', '/var/lib/app/x']\nimage-owned = ['/var/lib/app']\n",
			"/var/lib/app/x cannot belong to the host: [state] image-owned /var/lib/app comes from the image"},
		"kept twice": {"[[keep]]\nunit = 'web.socket'\n[[keep]]\nunit = 'web.socket'\n",
			"updatectl.toml: [[keep]] unit: web.socket is there twice"},
		"kept timer": {"[[keep]]\nunit = 'web.timer'\n",
			"updatectl.toml:2: [[keep]] unit: \"web.timer\" is not the name of a service or a socket"},
		"kept template": {"[[keep]]\nunit = 'web@.service'\n", "is not the name of a service or a socket"},
		"kept nothing":  {"[[keep]]\n", "[[keep]] has no unit"},
		"kept agent":    {"[[keep]]\nunit = 'updatectl-apply.service'\n", "updatectl-apply.service is updatectl's own"},
		"kept, unknown": {"[[keep]]\nunits = 'web.socket'\n", "unknown key keep.units; known here: unit"},
		"short window": {"[schedule]\nlength = '5m'\n",
			"updatectl.toml:2: [schedule] length is 5m0s and must be from 30m to 168h"},
		"grace": {"[schedule]\ngrace = '2h'\n",
			"updatectl.toml:2: [schedule] grace is 2h0m0s and must be less than length, 2h0m0s: otherwise nothing"},
		"group": {"[fleet]\ngroup = 'a/b'\n",
			"updatectl.toml:2: [fleet] group is \"a/b\" and may have letters, digits, dots and dashes only"},
		"wariness": {"[rollout]\nwariness = 1.5\n",
			"updatectl.toml:2: [rollout] wariness is 1.5 and must be from 0 to 1"},
		"no wariness": {"[rollout]\nwariness = nan\n", "[rollout] wariness is NaN and must be from 0 to 1"},
		"lock server": {"[fleetlock]\nurl = 'lock.example.org'\n",
			"updatectl.toml:2: [fleetlock] url: \"lock.example.org\" is not an address such as"},
		"lock password":        {"[fleetlock]\nurl = 'http://a:b@lock.example.org'\n", "[fleetlock] url: it has a password"},
		"metrics":              {"[metrics]\ntextfile = 'x'\n", "[metrics] textfile: \"x\" is not a clean absolute path"},
		"persist without /var": {"[state]\npersist = ['/home']\n", "must contain /var"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			testtree.File(t, root, "etc/updatectl/updatectl.toml", c.text)
			_, err := Load(below(root), "")
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error()+"\n", strings.ReplaceAll(c.want, "ROOT", root)) {
				t.Errorf("Load: %v; want ErrConfig with %q", err, c.want)
			}
		})
	}
	if _, err := Load(below("/"), filepath.Join(t.TempDir(), "none.toml")); !errors.Is(err, ErrConfig) {
		t.Errorf("a named file that is missing: %v", err)
	}
}

// TestShippedConfig: the shipped file is valid and has the defaults, its examples are valid when uncommented, and its
// comments fit a terminal as they are: `updatectl config example` writes it to a file that people edit.
func TestShippedConfig(t *testing.T) {
	c := Default()
	if err := c.decode("shipped", configs.Example()); err != nil {
		t.Fatal(err)
	}
	if err := c.validate(); err != nil {
		t.Error(err)
	}
	d := Default()
	if !slices.Equal(c.State.Persist, d.State.Persist) || !slices.Equal(c.State.ImageOwned, d.State.ImageOwned) ||
		!reflect.DeepEqual(c.Health, d.Health) || !reflect.DeepEqual(c.Switch, d.Switch) {
		t.Errorf("the shipped file says %+v, the defaults are %+v", c, d)
	}
	var examples []string
	for line := range strings.Lines(configs.Example()) {
		if strings.HasPrefix(line, "# ") && len(line) > printable.Columns {
			t.Errorf("the comment has %d columns: %s", len(line), line)
		}
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
	seeds := []string{configs.Example(), "[source]\nimage = 'x'\n", "[[source]]\n", "a.b.c = {d = 1}\n",
		"[health]\ndeadline = 5\n"}
	if len(seeds) == 0 || len(seeds[0]) == 0 {
		f.Fatal("the corpus is empty")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := Default()
		if err := c.decode("fuzz", text); err != nil && !errors.Is(err, ErrConfig) {
			t.Errorf("decode: %v is not ErrConfig", err)
		}
	})
}

// TestConfigOfOthers: root does not obey a configuration or a key that others can change. What leads back to a good
// root uses the configuration all the same: the host must not lose its state because of a mode.
func TestConfigOfOthers(t *testing.T) {
	root := t.TempDir()
	config := "[source]\nimage = 'x.example/y'\n[verify]\nkeys = ['/etc/updatectl/key']\n" +
		"[state]\npersist = ['/var', '/opt/x']\n"
	testtree.File(t, root, "etc/updatectl/updatectl.toml", config)
	testtree.File(t, root, "etc/updatectl/conf.d/10-more.toml", "[health]\ndeadline = '7m'\n")
	testtree.File(t, root, "etc/updatectl/key", "x")
	key := filepath.Join(root, "etc/updatectl/key")
	c, err := Load(below(root), "")
	if err == nil {
		err = os.Chmod(key, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Policy(below(root), time.Now()); !errors.Is(err, ErrConfig) ||
		!strings.Contains(err.Error(), "key has the mode 0666") {
		t.Errorf("a key that everybody can change: %v", err)
	}
	if err := os.Chown(filepath.Join(root, "etc/updatectl/conf.d"), 1234, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(below(root), ""); !errors.Is(err, ErrConfig) ||
		!strings.Contains(err.Error(), "belongs to user 1234") {
		t.Errorf("a fragment in somebody's directory: %v", err)
	}
	c, err = LoadUsable(below(root))
	if err != nil || time.Duration(c.Health.Deadline) != 7*time.Minute || len(c.State.Persist) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestConfigOfOddFiles: a FIFO in the place of a fragment or a key is refused. Opening it would wait until somebody
// writes to it. A link to /dev/null switches a fragment off.
func TestConfigOfOddFiles(t *testing.T) {
	root := t.TempDir()
	testtree.File(t, root, "etc/updatectl/updatectl.toml", "[source]\nimage = 'x.example/y'\n[verify]\nkeys = ['/key']\n")
	testtree.File(t, root, "etc/updatectl/conf.d/keep", "")
	off := filepath.Join(root, "etc/updatectl/conf.d/10-off.toml")
	fifo := filepath.Join(root, "etc/updatectl/conf.d/20-fifo.toml")
	if err := errors.Join(os.Symlink("/dev/null", off), unix.Mkfifo(filepath.Join(root, "key"), 0o600)); err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 2)
	go func() {
		c, err := Load(below(root), "")
		if err != nil {
			t.Errorf("a fragment that is switched off: %v", err)
		}
		_, err = c.Policy(below(root), time.Now())
		refused <- err
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Error(err)
		}
		_, err = Load(below(root), "")
		refused <- err
	}()
	for range 2 {
		select {
		case err := <-refused:
			if !errors.Is(err, ErrConfig) || !errors.Is(err, durable.ErrNotRegular) {
				t.Errorf("got %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("it hangs")
		}
	}
}

// TestBytes: a rate is written with a unit, and shown as it is written.
func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{
		"1KiB": 1 << 10, "64 KiB": 64 << 10, "10MB": 10_000_000, "500": 500, "1.5MiB": 3 << 19,
		"0": 0, "-1KiB": 0, "fast": 0,
	} {
		var b Bytes
		err := b.UnmarshalText([]byte(text))
		if want > 0 && (err != nil || b != want) || want == 0 && err == nil {
			t.Errorf("%q is %d, %v", text, b, err)
		}
		var again Bytes
		if shown, err := b.MarshalText(); want > 0 && (err != nil || again.UnmarshalText(shown) != nil || again != b) {
			t.Errorf("%q is shown as %s, which is %d", text, shown, again)
		}
	}
}
