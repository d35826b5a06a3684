//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

// smallTree is the least that counts as bootable: an init that tells its architecture and its version, and an
// os-release. Nobody boots it; it is what refusals are tried with, quickly.
func smallTree(t *testing.T) string {
	t.Helper()
	v1, err := lab.V1(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := `cd "$1"
mkdir -p "$2"/dev "$2"/proc "$2"/sys "$2"/run "$2"/etc "$2"/var "$2"/usr/sbin
cp --parents -a usr/lib/os-release usr/lib/systemd/systemd usr/lib/*/systemd/libsystemd-shared-*.so "$2"
ln -s usr/lib "$2"/lib; ln -s usr/sbin "$2"/sbin; ln -s ../lib/systemd/systemd "$2"/usr/sbin/init
ln -s ../usr/lib/os-release "$2"/etc/os-release`
	if out, err := exec.Command("sh", "-ec", script, "sh", v1, dir).CombinedOutput(); err != nil {
		t.Fatalf("cannot make a small tree: %v\n%s", err, out)
	}
	return dir
}

// releasectl runs the publisher's program beside the host.
func (s *site) releasectl(args ...string) string {
	s.Helper()
	cmd := exec.CommandContext(s.Context(), lab.Binary(s.T, "releasectl"), args...)
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.Fatalf("releasectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// offer packs, pushes and signs a tree as os/NAME:stable, and returns the name to ask for it with. A key "" leaves it
// unsigned.
func (s *site) offer(name, tree, key string, pack ...string) string {
	s.Helper()
	layout := filepath.Join(s.TempDir(), name)
	s.releasectl(append([]string{"pack", tree, layout + ":stable"}, pack...)...)
	return s.offerLayout(name, layout, key)
}

func (s *site) offerLayout(name, layout, key string) string {
	s.Helper()
	repository := "os/" + name + ":stable"
	s.releasectl("push", "--plain-http", layout+":stable", s.registry.Host+"/"+repository)
	if key != "" {
		s.releasectl("sign", "--plain-http", "--key", key, s.registry.Host+"/"+repository)
	}
	return repository
}

// untouched fails the test unless the host is what it was before anything was tried.
func (s *site) untouched() {
	s.Helper()
	v := s.status()
	if v.Booted.Root != "host" || v.Phase != "idle" || v.Staged != nil || v.Armed != "" {
		s.Errorf("the host is no longer as it was: %+v", v)
	}
	// Nothing visible, and nothing of what is not visible is left either, after the next command has looked.
	if left := s.host.Must(s.T, "sh", "-ec", "cd /var/lib/updatectl 2>/dev/null && ls -A roots || :"); left != "" {
		s.Errorf("a root is left over: %s", left)
	}
	if got := s.host.Must(s.T, "systemctl", "is-system-running"); got != "running" {
		s.Errorf("the system is %s", got)
	}
	if got := s.host.Must(s.T, "cat", "/usr/share/lab/version"); got != "host" {
		s.Errorf("/usr is that of %s", got)
	}
}

// TestRefusals tries every way in which an image can be wrong or out of reach: each ends with its own exit code, one
// clear sentence and a hint, and with the host as it was.
func TestRefusals(t *testing.T) {
	s := newSite(t, "refusals")
	wire := lab.NewWire(t, s.registry)
	tls := lab.NewRegistry(t, lab.RegistryOptions{TLS: true})
	locked := lab.NewRegistry(t, lab.RegistryOptions{User: "operator", Password: "secret"})
	down := lab.NewRegistry(t, lab.RegistryOptions{})
	down.Stop()
	plain := fmt.Sprintf("[source]\nplain-http = [%q, %q, %q, %q]\n", s.registry.Host, wire.Host, locked.Host, down.Host)
	if err := s.host.WriteFile("/etc/updatectl/conf.d/10-lab.toml", plain, 0o644); err != nil {
		t.Fatal(err)
	}
	other, err := lab.NewPublisher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tree := smallTree(t)
	noInit := smallTree(t)
	if err := os.Remove(filepath.Join(noInit, "usr/lib/systemd/systemd")); err != nil {
		t.Fatal(err)
	}
	good := s.offer("good", tree, s.publisher.Key)

	for _, c := range []struct {
		name     string
		ref      string
		code     int
		sentence string
		hint     string
		kind     string // of what is damaged on the wire, if it is
		damage   func() // before
	}{
		{name: "no such tag", ref: s.registry.Host + "/os/server:none", code: exitUnreachable, sentence: "not found", hint: "check the name and the tag"},
		{name: "no such repository", ref: s.registry.Host + "/os/none:stable", code: exitUnreachable, sentence: "not found", hint: "check the name and the tag"},
		{name: "bad reference", ref: "Not A Reference", code: exitUsage, sentence: "bad image reference", hint: "write host/repository:tag"},
		{name: "registry down", ref: down.Host + "/os/server:stable", code: exitUnreachable, sentence: "not reachable", hint: "try again when"},
		{name: "unknown certificate", ref: tls.Host + "/os/server:stable", code: exitUnreachable, sentence: "certificate", hint: "try again when"},
		{name: "no credentials", ref: locked.Host + "/os/server:stable", code: exitUnreachable, sentence: "access denied", hint: "log in as root"},
		{name: "unsigned", ref: s.registry.Host + "/" + s.offer("unsigned", tree, ""), code: exitNotTrusted, sentence: "unsigned", hint: "releasectl sign"},
		{name: "wrong key", ref: s.registry.Host + "/" + s.offer("stranger", tree, other.Key, "--version", "x"), code: exitNotTrusted, sentence: "none by a configured key", hint: "[verify] keys"},
		{name: "no init", ref: s.registry.Host + "/" + s.offer("noinit", noInit, s.publisher.Key, "--architecture", "amd64"), code: exitIncompatible, sentence: "not bootable", hint: "systemd as its init"},
		{name: "another architecture", ref: s.registry.Host + "/" + s.offer("arm", tree, s.publisher.Key, "--architecture", "arm64"), code: exitIncompatible, sentence: "arm64", hint: "for this platform"},
		{name: "wrong diff_id", ref: s.registry.Host + "/" + s.wrongDiffID(tree), code: exitNotTrusted, sentence: "does not match", hint: "what was signed"},
		{name: "tampered manifest", ref: wire.Host + "/" + good, code: exitNotTrusted, sentence: "does not match", hint: "what was signed",
			damage: func() { wire.Damage(lab.Manifests, lab.Flip(100)) }},
		{name: "tampered layer", ref: wire.Host + "/" + good, code: exitNotTrusted, sentence: "does not match", hint: "what was signed",
			damage: func() { wire.Damage(lab.Blobs+layerOf(s, "good"), lab.Flip(100_000)) }},
		{name: "cut layer", ref: wire.Host + "/" + good, code: exitUnreachable, sentence: "not reachable", hint: "try again",
			damage: func() { wire.Damage(lab.Blobs+layerOf(s, "good"), lab.Cut(100_000)) }},
		{name: "cut configuration", ref: wire.Host + "/" + good, code: exitUnreachable, sentence: "not reachable", hint: "try again",
			damage: func() { wire.Damage(lab.Blobs, lab.Cut(10)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s.in(t)
			if c.damage != nil {
				c.damage()
				defer wire.Repair()
			}
			s.refused(c.code, c.sentence, c.hint, "apply", "--from", c.ref)
			s.untouched()
		})
	}
	// The same image over the same wire is taken when nothing is wrong with it: what was refused was the damage.
	if r := s.updatectl(exitAvailable, "stage", "--from", wire.Host+"/"+good); !strings.Contains(r.Stdout, "sha256-") {
		t.Errorf("stage: %s", r)
	}
}

// in is the site for a subtest.
func (s *site) in(t *testing.T) *site {
	sub := *s
	sub.T = t
	return &sub
}

// layerOf is the digest of the one layer of an image in the registry.
func layerOf(s *site, name string) string {
	s.Helper()
	var manifest struct{ Layers []struct{ Digest string } }
	text, err := s.publisher.Manifest(s.Context(), s.registry, "os/"+name+":stable")
	if err != nil {
		s.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), &manifest); err != nil || len(manifest.Layers) != 1 {
		s.Fatalf("image %s has no single layer (%v): %s", name, err, text)
	}
	return manifest.Layers[0].Digest
}

// wrongDiffID offers an image, signed by the right key, whose configuration is at odds with its layer.
func (s *site) wrongDiffID(tree string) string {
	s.Helper()
	layout := filepath.Join(s.TempDir(), "diffid")
	s.releasectl("pack", tree, layout+":stable")
	if err := lab.EditConfig(layout, func(config map[string]any) {
		config["rootfs"].(map[string]any)["diff_ids"] = []string{"sha256:" + strings.Repeat("0", 64)}
	}); err != nil {
		s.Fatal(err)
	}
	return s.offerLayout("diffid", layout, s.publisher.Key)
}

// TestAtTheHost shows what is refused, or survived, because of the host and not of the image.
func TestAtTheHost(t *testing.T) {
	s := newSite(t, "athost")
	h := s.host

	t.Run("unknown key", func(t *testing.T) {
		s := s.in(t)
		if err := h.WriteFile("/etc/updatectl/conf.d/20-typo.toml", "[source]\n# a comment\nimgae = \"x\"\n", 0o644); err != nil {
			t.Fatal(err)
		}
		s.refused(exitUsage, "/etc/updatectl/conf.d/20-typo.toml:3", "config check", "apply")
		h.Must(t, "rm", "/etc/updatectl/conf.d/20-typo.toml")
		s.untouched()
	})
	t.Run("not root", func(t *testing.T) {
		s := s.in(t)
		r := h.Run(t.Context(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "updatectl", "apply")
		if r.Code != exitError || !strings.Contains(r.Stderr, "needs root") || !strings.Contains(r.Stderr, "hint: run it as root") {
			t.Errorf("as nobody: %s", r)
		}
		s.untouched()
	})
	t.Run("a second apply at once", func(t *testing.T) {
		s := s.in(t)
		wire := lab.NewWire(t, s.registry)
		if err := h.WriteFile("/etc/updatectl/conf.d/10-lab.toml", fmt.Sprintf("[source]\nplain-http = [%q, %q]\n", s.registry.Host, wire.Host), 0o644); err != nil {
			t.Fatal(err)
		}
		asked, free := make(chan struct{}), make(chan struct{})
		tell := sync.OnceFunc(func() { close(asked) })
		wire.Damage(lab.Blobs, func(r io.Reader) io.Reader { tell(); return lab.Hold(free)(r) })
		first := make(chan lab.Result, 1)
		go func() {
			first <- h.Run(t.Context(), "updatectl", "stage", "--from", wire.Host+"/os/server:stable")
		}()
		select {
		case <-asked:
		case r := <-first:
			t.Fatalf("the first did not wait: %s", r)
		}
		s.refused(exitBlocked, "another updatectl", "", "apply")
		wire.Repair()
		close(free)
		if r := <-first; r.Code != exitAvailable {
			t.Errorf("the first, which was only kept waiting: %s", r)
		}
	})
	t.Run("disk full", func(t *testing.T) {
		s := s.in(t)
		h.Must(t, "sh", "-ec", "rm -rf /var/lib/updatectl")
		free := func() string { return h.Must(t, "df", "--output=avail", "-B64M", "/var") }
		before := free()
		h.Must(t, "sh", "-ec", `avail=$(df --output=avail -B1M /var | tail -1); fallocate -l $((avail - 150))M /var/ballast`)
		s.refused(exitNoSpace, "not enough space", "updatectl gc", "apply")
		h.Must(t, "rm", "/var/ballast")
		s.untouched()
		s.updatectl(exitDone, "gc")
		if after := free(); after != before {
			t.Errorf("space that was free before (in 64 MiB): %s, after: %s", before, after)
		}
	})
	t.Run("killed at any moment of staging", func(t *testing.T) {
		s := s.in(t)
		h.Must(t, "sh", "-ec", "rm -rf /var/lib/updatectl")
		start := time.Now()
		s.updatectl(exitAvailable, "stage")
		whole := time.Since(start)
		h.Must(t, "sh", "-ec", "rm -rf /var/lib/updatectl")
		killed := 0
		const moments = 12
		for i := range moments {
			after := whole * time.Duration(2*i+1) / (2 * moments)
			r := h.Run(t.Context(), "timeout", "--signal=KILL", fmt.Sprintf("%.3f", after.Seconds()), "updatectl", "stage")
			switch r.Code {
			case 128 + 9:
				killed++
				s.untouched()
			case exitAvailable: // faster than the first time, as some objects were there
				h.Must(t, "sh", "-ec", "rm -rf /var/lib/updatectl")
			default:
				t.Fatalf("killed after %v: %s", after, r)
			}
		}
		if killed < moments/2 {
			t.Errorf("only %d of %d were killed in time: this shows nothing", killed, moments)
		}
		s.updatectl(exitAvailable, "stage")
		s.switches("apply")
		s.runs(s.roots["1"], "1")
	})
}
