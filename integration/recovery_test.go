//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
	"github.com/updatectl/updatectl/verify/printable"
)

// recovery is a fleet, its publisher, and the section of docs/recovery.md that they follow. The hosts are trees for
// updatectl --root: a run of their timers is a stage.
type recovery struct {
	*bench
	blocks []string          // of the page that are not followed yet
	places map[string]string // the names of the page, and what is behind them
	main   *lab.Registry
	trusts string // the certificates of the registries
	fleet  []string
}

const servers = "/os/server:stable"

// newRecovery starts a story: 2026.11.1 is published, and two hosts have taken it.
func newRecovery(t *testing.T, section string) *recovery {
	t.Helper()
	beside(t, lab.Nspawn)
	r := &recovery{bench: newBench(t), blocks: blocksOf(t, section), places: map[string]string{}}
	r.trusts = filepath.Join(r.dir, "ca.pem")
	r.main = r.registry("registry.example.org")
	r.script("", `openssl genpkey -algorithm ed25519 -out release.key
openssl pkey -in release.key -pubout -out release.pub`)
	r.pack("amd64", "the first")
	r.publish("2026.11.1", "42", "release.key", "720h")
	for range 2 {
		host := r.bench.host()
		r.fleet = append(r.fleet, host)
		r.write(host, "/etc/updatectl/keys/release.pub", r.read("release.pub"))
		r.write(host, "/etc/updatectl/updatectl.toml", "[source]\nimage = \"registry.example.org"+servers+
			"\"\n[verify]\nkeys = [\"/etc/updatectl/keys/release.pub\"]\n")
	}
	r.night(exitAvailable, "")
	r.on("2026.11.1", "release.pub")
	return r
}

// registry starts a registry for a name of the page.
func (r *recovery) registry(name string) *lab.Registry {
	r.Helper()
	started := lab.NewRegistry(r, lab.RegistryOptions{TLS: true})
	r.places[name] = started.Host
	ca, err := os.ReadFile(started.CA)
	if err != nil {
		r.Fatal(err)
	}
	old, _ := os.ReadFile(r.trusts)
	if err := os.WriteFile(r.trusts, append(old, ca...), 0o644); err != nil {
		r.Fatal(err)
	}
	return started
}

var fenced = regexp.MustCompile("(?ms)^ *```(?:sh|toml)\n(.*?)^ *```$")

// blocksOf returns the blocks of a section of the page, without their indent.
func blocksOf(t *testing.T, section string) []string {
	t.Helper()
	page, err := os.ReadFile("../docs/recovery.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(page), "\n## "+section+"\n")
	if !found {
		t.Fatalf("the page has no section %q", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var blocks []string
	for _, m := range fenced.FindAllStringSubmatch(text, -1) {
		var lines []string
		for line := range strings.Lines(m[1]) {
			lines = append(lines, strings.TrimPrefix(line, "   "))
		}
		blocks = append(blocks, strings.Join(lines, ""))
	}
	return blocks
}

// follow follows the next n blocks of the page, and returns the output of the last one.
func (r *recovery) follow(n int) (out string) {
	r.Helper()
	for range n {
		if len(r.blocks) == 0 {
			r.Fatal("the page has no more blocks")
		}
		where, text, _ := strings.Cut(r.blocks[0], "\n")
		r.blocks = r.blocks[1:]
		file, isFile := strings.CutPrefix(where, "# /etc/")
		switch {
		case isFile: // with the key that the page delivers beside it
			for _, host := range r.fleet {
				if next := filepath.Join(r.dir, "next.pub"); strings.Contains(text, "next.pub") {
					r.write(host, "/etc/updatectl/keys/next.pub", r.read(filepath.Base(next)))
				}
				r.write(host, "/etc/"+file, text)
			}
		case where == "# on every host":
			for _, host := range r.fleet {
				out = r.script(host, text)
			}
		case where == "# where releases are made":
			out = r.script("", text)
		default:
			r.Fatalf("a block of the page begins with %q", where)
		}
	}
	return out
}

// script runs a script of a person: on a host, or with "" where releases are made.
func (r *recovery) script(host, text string) string {
	r.Helper()
	if host != "" {
		text = `updatectl() { command updatectl --root "$HOST" "$@"; }` + "\n" + text
	}
	for name, place := range r.places {
		text = strings.ReplaceAll(text, name+"/", place+"/")
	}
	cmd := exec.CommandContext(r.Context(), "sh", "-ec", text)
	cmd.Dir = r.dir
	cmd.Env = append(r.environ(), "HOST="+host)
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.Fatalf("%v:\n%s\n%s", err, text, out)
	}
	return printable.Unwrap(string(out))
}

// environ is the environment of all programs: ours first, and the certificates of the registries.
func (r *recovery) environ() []string {
	return append(os.Environ(), "SSL_CERT_FILE="+r.trusts,
		"PATH="+filepath.Dir(lab.Binary(r, "updatectl"))+":"+os.Getenv("PATH"))
}

// publish publishes a release with the image that was packed last, as the page does.
func (r *recovery) publish(version, sequence, key, expires string) {
	r.Helper()
	r.script("", fmt.Sprintf(`releasectl release new --version %s --sequence %s --expires %s oci:layout:stable
releasectl release add image oci:layout:stable oci:layout:amd64
releasectl sign --key %s oci:layout:stable
releasectl push oci:layout:stable registry.example.org%s`, version, sequence, expires, key, servers))
}

// pack packs a small image that differs from others by a text.
func (r *recovery) pack(tag, text string) {
	r.Helper()
	tree := smallTree(r.T)
	if err := os.WriteFile(filepath.Join(tree, "usr/lib/text"), []byte(text), 0o644); err != nil {
		r.Fatal(err)
	}
	r.script("", "releasectl pack --quiet --version "+tag+" "+tree+" oci:layout:"+tag)
}

func (r *recovery) read(name string) string {
	r.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		r.Fatal(err)
	}
	return string(text)
}

// write writes a file on a host, with the names of the page replaced.
func (r *recovery) write(host, name, text string) {
	r.Helper()
	for name, place := range r.places {
		text = strings.ReplaceAll(text, name+"/", place+"/")
	}
	file := filepath.Join(host, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		r.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		r.Fatal(err)
	}
}

// night runs the timers of the fleet: every host must end with a code, and say something.
func (r *recovery) night(code int, says string) {
	r.Helper()
	for _, host := range r.fleet {
		cmd := exec.CommandContext(r.Context(), lab.Binary(r, "updatectl"), "--root", host, "stage")
		cmd.Env = r.environ()
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			r.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(printable.Unwrap(string(out)), says) {
			r.Fatalf("a host ended with %d, want %d and %q:\n%s", got, code, says, out)
		}
	}
}

// on expects every host to have staged a version that a key signed, and nothing to be wrong.
func (r *recovery) on(version, signer string) {
	r.Helper()
	for _, host := range r.fleet {
		var v struct {
			Staged struct {
				Version  string
				Vouchers []struct{ Signer string }
			}
			Refused *struct{ Reason string }
			Order   string
		}
		cmd := exec.CommandContext(r.Context(), lab.Binary(r, "updatectl"), "--root", host, "--output", "json", "status")
		out, err := cmd.Output()
		if err == nil {
			err = json.Unmarshal(out, &v)
		}
		if err != nil {
			r.Fatal(err)
		}
		if v.Staged.Version != version || len(v.Staged.Vouchers) != 1 || v.Staged.Vouchers[0].Signer != signer ||
			v.Refused != nil || v.Order != "" {
			r.Errorf("want %s by %s, status is %s", version, signer, out)
		}
	}
}

// done expects that all of the page was followed, and that the fleet takes the release after.
func (r *recovery) done(key string) {
	r.Helper()
	if len(r.blocks) > 0 {
		r.Errorf("%d blocks of the page were not followed", len(r.blocks))
	}
	r.pack("amd64", "the next")
	r.publish("2026.12.1", "44", key, "720h")
	r.night(exitAvailable, "")
	r.on("2026.12.1", strings.Replace(key, ".key", ".pub", 1))
}

// TestKeyStolen: a thief publishes an image of his own with the largest sequence, and the fleet takes it. After that it
// takes nothing of the publisher's, until the page was followed.
func TestKeyStolen(t *testing.T) {
	r := newRecovery(t, "A key was stolen")
	r.pack("theirs", "a back door")
	r.script("", `releasectl release new --version 9999 --sequence 9007199254740991 --expires 87600h oci:theirs:stable
releasectl release add image oci:theirs:stable oci:layout:theirs
releasectl sign --key release.key oci:theirs:stable
releasectl push oci:theirs:stable registry.example.org`+servers)
	r.night(exitAvailable, "9999")
	r.on("9999", "release.pub")
	r.publish("2026.11.2", "43", "release.key", "720h")
	r.night(exitStale, "sequence 9007199254740991 (version 9999) was accepted before")

	r.follow(2)
	r.night(exitNotTrusted, "release.pub signed it and is revoked: laptop stolen on 2026-03-01")
	r.follow(1)
	r.night(exitAvailable, "no longer counts, because release.pub vouched for it")
	r.on("2026.11.2", "next.pub")
	if history := r.follow(1); !strings.Contains(history, "9999") {
		t.Errorf("the history does not name what the thief published:\n%s", history)
	}
	// The thief's image, and what the publisher signed with that key, are refused; and so is an older release.
	r.script("", "releasectl push oci:theirs:stable registry.example.org"+servers)
	r.night(exitNotTrusted, "is revoked")
	r.publish("2026.11.1", "42", "next.key", "720h")
	r.night(exitStale, "sequence 43 (version 2026.11.2) was accepted before")
	r.done("next.key")
}

// TestKeyLost: the only key is gone, with everything that could be signed by it.
func TestKeyLost(t *testing.T) {
	r := newRecovery(t, "The only key was lost")
	lost := r.read("release.key")
	if err := os.Remove(filepath.Join(r.dir, "release.key")); err != nil {
		t.Fatal(err)
	}
	r.follow(3)
	r.night(exitAvailable, "")
	r.on("2026.11.2", "next.pub")
	r.done("next.key")
	// Whoever finds the lost key signs nothing with it.
	if err := os.WriteFile(filepath.Join(r.dir, "release.key"), []byte(lost), 0o600); err != nil {
		t.Fatal(err)
	}
	r.publish("2027.1.1", "45", "release.key", "720h")
	r.night(exitNotTrusted, "release.pub signed it and expired on 2026-03-01T00:00:00Z")
}

// TestExpiredInHoliday: nobody renews a release, and the fleet waits for it.
func TestExpiredInHoliday(t *testing.T) {
	r := newRecovery(t, "A release expired during a holiday")
	r.publish("2026.11.1", "42", "release.key", "-1m")
	r.night(exitStale, "expired")
	r.follow(1)
	r.night(exitAvailable, "")
	r.on("2026.11.1", "release.pub")
	r.done("release.key")
}

// TestRegistryFroze: a registry goes on to serve an old release until it expires. The fleet gets another registry.
func TestRegistryFroze(t *testing.T) {
	r := newRecovery(t, "A registry froze")
	r.registry("registry2.example.org")
	r.publish("2026.11.1", "42", "release.key", "-1m") // what it serves
	r.pack("amd64", "the second")
	r.script("", `releasectl release new --version 2026.11.2 --sequence 43 --expires 720h oci:layout:stable
releasectl release add image oci:layout:stable oci:layout:amd64
releasectl sign --key release.key oci:layout:stable`)
	r.night(exitStale, "expired")
	if served := r.follow(1); !regexp.MustCompile(`(?s)sequence +43.*sequence +42`).MatchString(served) {
		t.Errorf("the difference does not show:\n%s", served)
	}
	r.follow(2)
	r.night(exitAvailable, "")
	r.on("2026.11.2", "release.pub")
	r.places["registry.example.org"] = r.places["registry2.example.org"] // where releases go from now on
	r.done("release.key")
}

// TestMirrorsDiffer: the first place is down, and the mirror is behind.
func TestMirrorsDiffer(t *testing.T) {
	r := newRecovery(t, "Mirrors differ")
	r.registry("mirror.example.org")
	r.script("", "releasectl push oci:layout:stable mirror.example.org"+servers)
	for _, host := range r.fleet {
		r.write(host, "/etc/updatectl/conf.d/50-mirrors.toml", "[source]\nmirrors = [\"mirror.example.org"+servers+"\"]\n")
	}
	r.pack("amd64", "the second")
	r.publish("2026.11.2", "43", "release.key", "720h")
	r.night(exitAvailable, "")
	r.on("2026.11.2", "release.pub")
	r.main.Stop()
	r.night(exitStale, "sequence 43 (version 2026.11.2) was accepted before")
	if err := r.main.Start(); err != nil {
		t.Fatal(err)
	}
	if served := r.follow(1); !regexp.MustCompile(`(?s)sequence +43.*sequence +42`).MatchString(served) {
		t.Errorf("the difference does not show:\n%s", served)
	}
	r.follow(1)
	r.main.Stop()
	r.night(exitAvailable, "")
	r.on("2026.11.2", "release.pub")
	if err := r.main.Start(); err != nil {
		t.Fatal(err)
	}
	r.done("release.key")
}
