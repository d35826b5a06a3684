//go:build lab

package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
	"github.com/updatectl/updatectl/verify/printable"
)

// smallTree returns the smallest tree that counts as bootable: an init with an architecture and a version, and an
// os-release. No host boots it; it makes refusals quick to test.
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

// releasectl runs the publisher's program, outside of the host, and returns its output.
func (s *site) releasectl(args ...string) string {
	s.Helper()
	out, err := s.runReleasectl(args...)
	if err != nil {
		s.Fatalf("releasectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// releasectlFails runs releasectl, which must fail, and returns its output, no line of it broken for a terminal.
func (s *site) releasectlFails(args ...string) string {
	s.Helper()
	out, err := s.runReleasectl(args...)
	if err == nil {
		s.Fatalf("releasectl %s did not fail:\n%s", strings.Join(args, " "), out)
	}
	return printable.Unwrap(out)
}

func (s *site) runReleasectl(args ...string) (string, error) {
	s.Helper()
	cmd := exec.CommandContext(s.Context(), lab.Binary(s.T, "releasectl"), args...)
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// offer packs, signs and pushes a tree as os/NAME:stable, and returns the reference without the registry. With the key
// "" it stays unsigned.
func (s *site) offer(name, tree, key string, pack ...string) string {
	s.Helper()
	layout := filepath.Join(s.TempDir(), name)
	s.releasectl(append([]string{"pack", tree, layout + ":stable"}, pack...)...)
	return s.offerLayout(name, layout, key)
}

func (s *site) offerLayout(name, layout, key string) string {
	s.Helper()
	repository := "os/" + name + ":stable"
	if key != "" {
		s.releasectl("sign", "--key", key, "oci:"+layout+":stable")
	}
	s.releasectl("push", "--plain-http", layout+":stable", s.registry.Host+"/"+repository)
	return repository
}

// condition is what must not change when a command refuses.
type condition struct {
	boot                                lab.BootStamp
	phase, booted, staged, armed, armer string
	system, page                        string
	kept                                string // roots, objects and leftovers of staging
}

func (s *site) condition() condition {
	s.Helper()
	boot, err := s.host.Stamp(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	v := s.status()
	c := condition{boot: boot, phase: v.Phase, booted: v.Booted.Root, armed: v.Armed}
	if v.Staged != nil {
		c.staged = v.Staged.Root
	}
	text := func(script string) string { return strings.TrimSpace(s.host.Sh(s.Context(), script).Stdout) }
	c.armer = text("systemctl is-active " + armUnit + "; findmnt -n /run/nextroot || :")
	c.system = text("systemctl is-system-running; systemctl --failed --plain --no-legend; cat /usr/share/lab/version")
	// The first command that may change something makes the directories; they are empty then. What was begun of a root
	// is kept for the next run.
	c.kept = text("mkdir -p -m 0700 /var/lib/updatectl && cd /var/lib/updatectl && " +
		"mkdir -p -m 0700 roots staging objects && ls -A roots && ls -A --ignore='root-*' staging && " +
		"find objects -type f | wc -l || :")
	client := http.Client{Timeout: s.host.Patience()}
	answer, err := client.Get("http://" + s.host.Addr + "/")
	if err != nil {
		s.Fatalf("the web server does not answer: %v", err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil {
		s.Fatal(err)
	}
	c.page = strings.TrimSpace(string(page))
	return c
}

// untouched fails the test unless the condition of the host is unchanged.
func (s *site) untouched(before condition) {
	s.Helper()
	if after := s.condition(); after != before {
		s.Errorf("the host has changed:\n%+v\nbefore:\n%+v", after, before)
	}
}

// nothingVisible fails the test if staging has left anything outside of the staging directory, where the next run goes
// on with it.
func (s *site) nothingVisible() {
	s.Helper()
	v := s.status()
	if v.Booted.Root != "host" || v.Phase != "idle" || v.Staged != nil || v.Armed != "" {
		s.Errorf("the host has changed: %+v", v)
	}
	if left := s.host.Must(s.T, "sh", "-ec", "cd /var/lib/updatectl 2>/dev/null && ls -A roots || :"); left != "" {
		s.Errorf("a root is left over: %s", left)
	}
}

// wholeOrNothing fails the test if a staging that was killed has left a part of a root. It reports whether it was done.
// A process may be killed between its last work and its end, and between a root's name and its record: a root that has
// its name is whole.
func (s *site) wholeOrNothing() bool {
	s.Helper()
	roots := s.host.Must(s.T, "sh", "-ec", "cd /var/lib/updatectl/roots 2>/dev/null && ls -A || :")
	if s.status().Phase == "staged" || roots != "" {
		s.updatectl(exitDone, "fsck")
		return true
	}
	s.nothingVisible()
	return false
}

// complains runs the agent, which must refuse with an exit code, one sentence and one hint, in text and in JSON.
func (s *site) complains(code int, sentence, hint string, args ...string) {
	s.Helper()
	r := s.updatectl(code, append([]string{"--output", "json"}, args...)...)
	lines := strings.Split(strings.TrimSuffix(r.Stderr, "\n"), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "updatectl: ") || !strings.HasPrefix(lines[1], "hint: ") {
		s.Fatalf("updatectl %s does not print one sentence and one hint:\n%s", strings.Join(args, " "), r.Stderr)
	}
	s.Log(r.Stderr)
	if !mentions(lines[0], sentence) {
		s.Errorf("updatectl %s prints %q, want %q in it", strings.Join(args, " "), lines[0], sentence)
	}
	if !mentions(lines[1], hint) {
		s.Errorf("updatectl %s prints %q, want %q in it", strings.Join(args, " "), lines[1], hint)
	}
	var answer struct {
		Schema, Error, Hint string
		Code                int `json:"exit_code"`
	}
	if err := json.Unmarshal([]byte(r.Stdout), &answer); err != nil || answer.Schema != "updatectl.error/v1" ||
		answer.Code != code ||
		short("updatectl: "+answer.Error) != short(lines[0]) || short("hint: "+answer.Hint) != short(lines[1]) {
		s.Errorf("updatectl %s prints as JSON (%v):\n%s", strings.Join(args, " "), err, r.Stdout)
	}
}

// TestRefusals tries every way in which an image can be wrong or unreachable: each ends with its own exit code, one
// clear sentence and a hint, and leaves the host unchanged.
func TestRefusals(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "refusals")
	wire := lab.NewWire(t, s.registry)
	tls := lab.NewRegistry(t, lab.RegistryOptions{TLS: true})
	locked := lab.NewRegistry(t, lab.RegistryOptions{User: "operator", Password: "secret"})
	down := lab.NewRegistry(t, lab.RegistryOptions{})
	down.Stop()
	plain := fmt.Sprintf("[source]\nplain-http = [%q, %q, %q, %q]\n", s.registry.Host, wire.Host, locked.Host,
		down.Host)
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
	noRelease := smallTree(t)
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		if err := os.Remove(filepath.Join(noRelease, name)); err != nil {
			t.Fatal(err)
		}
	}
	good := s.offer("good", tree, s.publisher.Key)
	manifest, layer := s.digests("good")

	for _, c := range []struct {
		name     string
		ref      string
		code     int
		sentence string
		hint     string
		damage   func() (repair func()) // before
	}{
		{name: "no such tag", ref: s.registry.Host + "/os/server:none", code: exitUnreachable, sentence: "not found",
			hint: "check the name and the tag"},
		{name: "no such repository", ref: s.registry.Host + "/os/none:stable", code: exitUnreachable,
			sentence: "not found", hint: "check the name and the tag"},
		{name: "bad reference", ref: "Not A Reference", code: exitUsage, sentence: "bad image reference",
			hint: "write the reference as host/repository:tag"},
		{name: "registry down", ref: down.Host + "/os/server:stable", code: exitUnreachable, sentence: "not reachable",
			hint: "try again when"},
		{name: "unknown certificate", ref: tls.Host + "/os/server:stable", code: exitUnreachable,
			sentence: "certificate", hint: "update-ca-certificates"},
		{name: "no credentials", ref: locked.Host + "/os/server:stable", code: exitUnreachable,
			sentence: "access denied", hint: "log in as root"},
		{name: "unsigned", ref: s.registry.Host + "/" + s.offer("unsigned", tree, ""), code: exitNotTrusted,
			sentence: "unsigned", hint: "ask who published this image"},
		{name: "wrong key", ref: s.registry.Host + "/" + s.offer("stranger", tree, other.Key, "--version", "x"),
			code: exitNotTrusted, sentence: "none by a configured key", hint: "[verify] keys"},
		{name: "no init", ref: s.registry.Host + "/" + s.offer("noinit", noInit, s.publisher.Key, "--architecture",
			"amd64"), code: exitIncompatible, sentence: "not bootable", hint: "systemd as its init"},
		{name: "another architecture", ref: s.registry.Host + "/" + s.offer("arm", tree, s.publisher.Key,
			"--architecture", "arm64"), code: exitIncompatible, sentence: "arm64", hint: "for this platform"},
		{name: "wrong diff_id", ref: s.registry.Host + "/" + s.wrongDiffID(tree), code: exitNotTrusted,
			sentence: "does not match", hint: "what was signed"},
		{name: "tampered manifest", ref: wire.Host + "/" + good, code: exitNotTrusted, sentence: "does not match",
			hint:   "what was signed",
			damage: func() func() { wire.Damage(lab.Manifests, lab.Flip(100)); return wire.Repair }},
		{name: "tampered layer", ref: wire.Host + "/" + good, code: exitNotTrusted, sentence: "does not match",
			hint:   "what was signed",
			damage: func() func() { wire.Damage(lab.Blobs+layer, lab.Flip(100_000)); return wire.Repair }},
		{name: "cut layer", ref: wire.Host + "/" + good, code: exitUnreachable, sentence: "not reachable",
			hint:   "try again",
			damage: func() func() { wire.Damage(lab.Blobs+layer, lab.Cut(10_000)); return wire.Repair }},
		{name: "layer damaged where it is stored", ref: s.registry.Host + "/" + good, code: exitNotTrusted,
			sentence: "does not match", hint: "what was signed",
			damage: func() func() {
				return s.spoil(layer, func(stored []byte) []byte { stored[len(stored)/2] ^= 0xff; return stored })
			}},
		{name: "layer truncated where it is stored", ref: s.registry.Host + "/" + good, code: exitUnreachable,
			sentence: "not reachable", hint: "try again",
			damage: func() func() {
				return s.spoil(layer, func(stored []byte) []byte { return stored[:len(stored)/2] })
			}},
		{name: "manifest damaged where it is stored", ref: s.registry.Host + "/" + good, code: exitNotTrusted,
			sentence: "does not match", hint: "what was signed",
			damage: func() func() {
				return s.spoil(manifest,
					func(stored []byte) []byte {
						stored[bytes.LastIndex(stored,
							[]byte("sha256:"))+7] ^= 1
						return stored
					})
			}},
		{name: "signature of another image", ref: s.registry.Host + "/" + s.borrowedSignature(tree),
			code:     exitNotTrusted,
			sentence: "the signature by release.pub is for", hint: "what was signed"},
		{name: "no os-release", ref: s.registry.Host + "/" + s.offer("norelease", noRelease, s.publisher.Key),
			code:     exitIncompatible,
			sentence: "neither /etc/os-release nor /usr/lib/os-release", hint: "an os-release"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s.in(t)
			if c.damage != nil {
				defer c.damage()()
			}
			before := s.condition()
			s.complains(c.code, c.sentence, c.hint, "apply", "--from", c.ref)
			s.untouched(before)
		})
	}
	// The same image over the same wire is accepted without the damage.
	if r := s.updatectl(exitAvailable, "stage", "--from", wire.Host+"/"+good); !strings.Contains(r.Stdout, "sha256-") {
		t.Errorf("stage: %s", r)
	}
}

// in returns the site for a subtest.
func (s *site) in(t *testing.T) *site {
	sub := *s
	sub.T = t
	return &sub
}

// digests returns the digests of the manifest and the only layer of an image in the registry.
func (s *site) digests(name string) (manifest, layer string) {
	s.Helper()
	text, err := s.publisher.Manifest(s.Context(), s.registry, "os/"+name+":stable")
	if err != nil {
		s.Fatal(err)
	}
	var m struct{ Layers []struct{ Digest string } }
	if err := json.Unmarshal([]byte(text), &m); err != nil || len(m.Layers) != 1 {
		s.Fatalf("image %s has no single layer (%v): %s", name, err, text)
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))), m.Layers[0].Digest
}

// wrongDiffID offers an image, signed by the right key, whose configuration contradicts its layer.
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

// spoil changes what the registry has stored under a digest, and returns a function that repairs it.
func (s *site) spoil(digest string, how func([]byte) []byte) (repair func()) {
	s.Helper()
	_, hex, _ := strings.Cut(digest, ":")
	file := filepath.Join(s.registry.Storage(), "docker/registry/v2/blobs/sha256", hex[:2], hex, "data")
	stored, err := os.ReadFile(file)
	if err != nil {
		s.Fatal(err)
	}
	write := func(content []byte) {
		if err := os.WriteFile(file, content, 0o644); err != nil {
			s.Fatal(err)
		}
	}
	write(how(bytes.Clone(stored)))
	return func() { write(stored) }
}

// borrowedSignature offers two images, signs the first, and attaches its signature to the second, which it returns.
func (s *site) borrowedSignature(tree string) string {
	s.Helper()
	var tags []string
	for _, version := range []string{"lender", "borrower"} {
		layout := filepath.Join(s.TempDir(), version)
		s.releasectl("pack", tree, layout+":latest", "--version", version)
		digest, err := s.publisher.Push(s.Context(), s.registry, layout, "os/lent:"+version)
		if err != nil {
			s.Fatal(err)
		}
		// the tag of the signatures in a registry without referrers
		tags = append(tags, strings.Replace(digest, ":", "-", 1))
	}
	s.releasectl("sign", "--plain-http", "--key", s.publisher.Key, s.registry.Host+"/os/lent@"+
		strings.Replace(tags[0], "-", ":", 1))
	url := "http://" + s.registry.Host + "/v2/os/lent/manifests/"
	get, err := http.NewRequestWithContext(s.Context(), http.MethodGet, url+tags[0], nil)
	if err != nil {
		s.Fatal(err)
	}
	get.Header.Set("Accept", "application/vnd.oci.image.index.v1+json")
	got, err := http.DefaultClient.Do(get)
	if err != nil {
		s.Fatal(err)
	}
	defer got.Body.Close()
	put, err := http.NewRequestWithContext(s.Context(), http.MethodPut, url+tags[1], got.Body)
	if err != nil {
		s.Fatal(err)
	}
	put.Header.Set("Content-Type", got.Header.Get("Content-Type"))
	put.ContentLength = got.ContentLength
	answer, err := http.DefaultClient.Do(put)
	if err != nil {
		s.Fatal(err)
	}
	answer.Body.Close()
	if got.StatusCode != http.StatusOK || answer.StatusCode != http.StatusCreated {
		s.Fatalf("cannot copy the signature: %s, then %s", got.Status, answer.Status)
	}
	return "os/lent:borrower"
}

// TestTrustOfTheHost shows that the agent, like docker and podman, reaches registries with the system's certificates
// and with root's credentials.
func TestTrustOfTheHost(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "trust")
	h := s.host
	tls := lab.NewRegistry(t, lab.RegistryOptions{TLS: true, User: "operator", Password: "secret"})
	layout := filepath.Join(t.TempDir(), "small")
	s.releasectl("pack", smallTree(t), layout+":latest")
	digest, err := s.publisher.Push(t.Context(), tls, layout, "os/small:stable")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.publisher.Sign(t.Context(), tls, tls.Host+"/os/small@"+digest); err != nil {
		t.Fatal(err)
	}
	ref := tls.Host + "/os/small:stable"
	s.complains(exitUnreachable, "certificate", "update-ca-certificates", "check", "--from", ref)
	if err := h.CopyIn(t.Context(), tls.CA, "/usr/local/share/ca-certificates/lab.crt"); err != nil {
		t.Fatal(err)
	}
	h.Must(t, "update-ca-certificates")
	s.complains(exitUnreachable, "access denied", "log in as root", "check", "--from", ref)
	credentials := func(password string) string {
		return fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, tls.Host,
			base64.StdEncoding.EncodeToString([]byte("operator:"+password)))
	}
	for _, file := range []string{"/root/.docker/config.json", "/run/containers/0/auth.json",
		"/etc/containers/auth.json"} {
		for password, code := range map[string]int{"guessed": exitUnreachable, "secret": exitAvailable} {
			if err := h.WriteFile(file, credentials(password), 0o600); err != nil {
				t.Fatal(err)
			}
			if code == exitUnreachable {
				s.complains(code, "access denied", "log in as root", "check", "--from", ref)
			} else {
				s.updatectl(code, "check", "--from", ref)
			}
		}
		h.Must(t, "rm", file)
	}
	// A service has neither HOME nor a session, but still finds root's files.
	if err := h.WriteFile("/root/.docker/config.json", credentials("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Must(t, "systemd-run", "--quiet", "--wait", "--property=SuccessExitStatus=10", "updatectl", "check", "--from",
		ref)
}

// TestOldHost shows a host that cannot soft-reboot.
func TestOldHost(t *testing.T) {
	beside(t, lab.Nspawn)
	s := &site{T: t}
	publisher, err := lab.NewPublisher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	registry := lab.NewRegistry(t, lab.RegistryOptions{})
	s.host = lab.StartOld(t, lab.Options{Name: "old", Customise: func(root string) error {
		if err := lab.Install(root); err != nil {
			return err
		}
		return lab.Follow(root, registry, "os/server:stable", publisher)
	}})
	for _, verb := range []string{"apply", "stage"} {
		s.complains(exitIncompatible, "systemd 252",
			"such as Debian 13", verb)
	}
	if v := s.status(); v.Booted.Root != "host" || v.Phase != "idle" || v.Staged != nil {
		t.Errorf("status is %+v", v)
	}
	if got := s.host.Must(t, "systemctl", "is-system-running"); got != "running" {
		t.Errorf("the system is %s", got)
	}
}

// TestAtTheHost shows refusals and interruptions that are due to the host and not to the image.
func TestAtTheHost(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "athost")
	h := s.host

	t.Run("unknown key", func(t *testing.T) {
		s := s.in(t)
		before := s.condition()
		if err := h.WriteFile("/etc/updatectl/conf.d/20-typo.toml", "[source]\n# a comment\nimgae = \"x\"\n",
			0o644); err != nil {
			t.Fatal(err)
		}
		s.complains(exitUsage, "/etc/updatectl/conf.d/20-typo.toml:3: ", "config check",
			"apply")
		h.Must(t, "rm", "/etc/updatectl/conf.d/20-typo.toml")
		s.untouched(before)
	})
	t.Run("not root", func(t *testing.T) {
		s := s.in(t)
		before := s.condition()
		r := h.Run(t.Context(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "updatectl", "apply")
		if r.Code != exitError || !strings.Contains(r.Stderr, "must be run as the superuser") ||
			!strings.Contains(r.Stderr, "hint: run it as root") {
			t.Errorf("as nobody: %s", r)
		}
		s.untouched(before)
	})
	t.Run("a second apply at once", func(t *testing.T) {
		s := s.in(t)
		wire := lab.NewWire(t, s.registry)
		if err := h.WriteFile("/etc/updatectl/conf.d/10-lab.toml", fmt.Sprintf("[source]\nplain-http = [%q, %q]\n",
			s.registry.Host, wire.Host), 0o644); err != nil {
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
		s.complains(exitBlocked, "(stage, process ", "--wait", "apply")
		wire.Repair()
		close(free)
		if r := <-first; r.Code != exitAvailable {
			t.Errorf("the first, which only had to wait: %s", r)
		}
	})
	t.Run("disk full", func(t *testing.T) {
		s := s.in(t)
		h.Must(t, "sh", "-ec", "rm -rf /var/lib/updatectl")
		free := func() string { return h.Must(t, "df", "--output=avail", "-B64M", "/var") }
		before, was := free(), s.condition()
		h.Must(t, "sh", "-ec",
			`avail=$(df --output=avail -B1M /var | tail -1); fallocate -l $((avail - 150))M /var/ballast`)
		s.complains(exitNoSpace, "not enough space", "updatectl gc", "apply")
		h.Must(t, "rm", "/var/ballast")
		s.untouched(was)
		if after := free(); after != before {
			t.Errorf("free space before (in 64 MiB): %s, after: %s", before, after)
		}
	})
	t.Run("killed at any moment of staging", func(t *testing.T) {
		s := s.in(t)
		h.Must(t, "sh", "-ec", "rm -rf /var/lib/updatectl")
		start := time.Now()
		s.updatectl(exitAvailable, "stage")
		whole := time.Since(start)
		killed := 0
		const moments = 12
		for i := range moments {
			after := whole * time.Duration(2*i+1) / (2 * moments)
			h.Must(t, "sh", "-ec", "rm -rf /var/lib/updatectl") // a run that goes on with something is faster
			begun := time.Now()
			r := h.Run(t.Context(), "timeout", "--signal=KILL", fmt.Sprintf("%.3f", after.Seconds()), "updatectl",
				"stage")
			switch r.Code {
			case 128 + 9:
				if !s.wholeOrNothing() {
					killed++
				}
			case exitAvailable: // faster than the first time
				whole = min(whole, time.Since(begun))
			default:
				t.Fatalf("killed after %v: %s", after, r)
			}
		}
		if killed < moments/2 {
			t.Errorf("only %d of %d were killed in time: this shows nothing", killed, moments)
		}
		// Names become visible within a short time, which needs moments of its own.
		const script = `mkfifo /run/progress; updatectl --progress-fd 3 stage 3>/run/progress & pid=$!
grep -qm1 commit /run/progress; sleep $1; kill -KILL $pid; wait $pid || code=$?; rm /run/progress; exit ${code:-0}`
		for _, after := range []string{"0", "0.05", "0.1", "0.2", "0.4"} {
			h.Must(t, "sh", "-ec", "rm -rf /var/lib/updatectl")
			if r := h.Run(t.Context(), "bash", "-c", script, "bash", after); r.Code == 128+9 {
				s.wholeOrNothing()
			} else if r.Code != exitAvailable {
				t.Fatalf("killed %s s after it began to commit: %s", after, r)
			}
		}
		s.updatectl(exitAvailable, "stage")
		if got := h.Must(t, "ls", "-A", "/var/lib/updatectl/staging"); got != "" {
			t.Errorf("staging has left %s", got)
		}
		s.removedNothing() // killed stagings have left nothing
		s.switches("apply")
		s.runs(s.roots["1"], "1")
	})
}
