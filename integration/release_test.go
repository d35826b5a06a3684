//go:build lab

package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/patches/patchestest"
	"github.com/updatectl/updatectl/integration/lab"
)

// newest is the name that the hosts of these tests follow.
const newest = "os/server:stable"

// TestReleases is the life of a host that follows releases, made by releasectl and signed by cosign: it applies what
// is new, and nothing that is older, expired, behind a barrier or signed by a revoked key, unless its operator says
// so.
func TestReleases(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "releases")
	s.settlesAtOnce()
	s.publish("2", "os/two:stable") // only to know its root
	next, err := lab.NewPublisher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	one := s.release("1.0", "1", "1", "--notes", "the first one")
	s.offerAs("1.0", newest)

	t.Log("host -> release 1.0")
	if found := s.checks(exitAvailable); !found.Newer || found.Release.Version != "1.0" || found.Release.Sequence != 1 ||
		found.Release.Expires.IsZero() || found.Release.Notes != "the first one" || len(found.Vouchers) != 1 ||
		found.Vouchers[0].Signer != "release.pub" || found.Vouchers[0].Form != "bundle" {
		t.Errorf("check finds %+v", found)
	}
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	s.vouched(s.roots["1"], "release.pub")

	// A key is lost. A file revokes it on the hosts; once the next key has signed the release, nothing has to be built
	// or staged again.
	s.revoke(next)
	s.refused(exitNotTrusted, "the laptop was stolen", "signed under today's policy", "verify")
	before := s.condition()
	s.complains(exitNotTrusted, "is revoked", "sign it with a key that is accepted", "apply")
	s.untouched(before)
	if err := next.Sign(t.Context(), s.registry, s.registry.Host+"/os/server@"+one.String()); err != nil {
		t.Fatal(err)
	}
	s.runsAlready("1", "1.0")
	s.vouched(s.roots["1"], "next.pub")
	s.found()

	t.Log("1.0 -> 2.0")
	s.release("2.0", "2", "2")
	s.offerAs("2.0", newest)
	s.updatectl(exitAvailable, "stage")
	s.vouched("", "release.pub") // the staged one
	s.revoke(next)
	s.refused(exitNotTrusted, "is revoked", "", "verify", s.roots["2"])
	s.vouched(s.roots["1"], "next.pub") // both keys have signed it
	s.found()
	s.switches("apply")
	s.runs(s.roots["2"], "2")
	s.vouched("", "release.pub") // the booted one

	// Somebody moves the tag back.
	s.offerAs("1.0", newest)
	before = s.condition()
	for _, command := range []string{"check", "stage", "apply"} {
		s.complains(exitStale, "sequence 2 (version 2.0)",
			"apply --allow-downgrade", command)
	}
	s.untouched(before)

	t.Log("2.0 -> 1.0, because the operator allows it")
	s.switches("apply", "--allow-downgrade")
	s.runs(s.roots["1"], "1")
	if all := s.history(); !slices.ContainsFunc(all, func(e historyEvent) bool {
		return e.Event == "downgrade" && e.Root == s.roots["1"] && e.Version == "1.0" &&
			strings.Contains(e.Reason, "--allow-downgrade")
	}) {
		t.Errorf("the history does not show the downgrade: %+v", all)
	}
	// The nightly timer does not change that, whatever the tag names.
	before = s.condition()
	s.runsAlready("1", "1.0", "--unattended")
	s.offerAs("2.0", newest)
	if why := s.skipped(); !strings.Contains(why, "1.0") {
		t.Errorf("an unattended apply skips the image that was downgraded from because %q", why)
	}
	s.untouched(before)

	s.release("2.1", "3", "2", "--expires", "-1h")
	s.complains(exitStale, "expired", "publish it again", "apply", "--from",
		s.registry.Host+"/os/server:2.1")
	s.untouched(before)

	t.Log("1.0 -> 2.0 -> 3.0, which has a barrier")
	s.release("3.0", "4", "2", "--min-version", "2.0")
	s.offerAs("3.0", newest)
	first := s.registry.Host + "/os/server:2.0"
	s.complains(exitBlocked, "`updatectl apply --from "+first+"`", "", "apply")
	s.untouched(before)
	s.switches("apply", "--retry", "--from", first)
	s.runs(s.roots["2"], "2")
	s.runsAlready("2", "3.0") // 3.0 has the image of 2.0

	t.Log("3.0 -> 1.0, rolled back")
	s.switches("rollback")
	s.runs(s.roots["1"], "1")
	// Now the barrier holds again, and the release before it is older than what was accepted: both need the operator.
	before = s.condition()
	s.complains(exitBlocked, "`updatectl apply --from "+first+"`", "", "apply")
	s.complains(exitStale, "sequence 4 (version 3.0)",
		"apply --allow-downgrade", "apply", "--from", first)
	s.complains(exitBlocked, s.status().Bad[s.roots["2"]].Reason, "apply --retry", "apply", "--allow-downgrade",
		"--from", first)
	// and that has changed nothing
	s.complains(exitStale, "sequence 4 (version 3.0)", "", "check", "--from", first)
	s.untouched(before)
	s.switches("apply", "--allow-downgrade", "--retry", "--from", first)
	s.runs(s.roots["2"], "2")
	s.runsAlready("2", "3.0")

	t.Log("3.0 -> 1.0 -> 3.0, by their names: with the present /etc, and nothing is fetched")
	s.host.Must(t, "sh", "-c", "echo since >/etc/since")
	s.switches("switch", "1.0")
	s.runs(s.roots["1"], "1")
	s.switches("switch", "3.0")
	s.runs(s.roots["2"], "2")
	s.host.Must(t, "grep", "-x", "since", "/etc/since")
	table := s.updatectl(exitDone, "roots").Stdout
	for _, want := range []string{s.roots["1"][:19] + ` +1\.0 .* good`, s.roots["2"][:19] + ` +3\.0 .* booted, good`} {
		if !regexp.MustCompile(want).MatchString(table) {
			t.Errorf("no line of the roots is like %q:\n%s", want, table)
		}
	}
}

// runsAlready runs apply and expects the image of a tree, as a version, to be booted already.
func (s *site) runsAlready(tree, version string, flags ...string) {
	s.Helper()
	if a := s.stays(flags...); a.Root != s.roots[tree] || a.Version != version || a.Skipped != "" {
		s.Errorf("apply answers %+v, want %s, version %s", a, s.roots[tree], version)
	}
}

// found is the part of `updatectl check --output json` that the tests read.
type found struct {
	Newer, Live bool
	Vouchers    []struct{ Signer, Form string }
	LivePatches []livePatch `json:"live_patches"`
	Release     struct {
		Version, Notes string
		Sequence       int
		Expires        time.Time
	}
}

// checks runs check, expects an exit code and returns the answer.
func (s *site) checks(code int, args ...string) found {
	s.Helper()
	var f found
	s.answer(&f, code, append([]string{"check"}, args...)...)
	return f
}

// release publishes a release with the image of a tree as os/server:VERSION, made by releasectl and signed by cosign,
// and returns its digest.
func (s *site) release(version, sequence, tree string, flags ...string) digest.Digest {
	s.Helper()
	image, err := s.publisher.Layout(s.Context(), s.tree(tree))
	if err != nil {
		s.Fatal(err)
	}
	draft := s.draft(version, sequence, flags...)
	s.releasectl("release", "add", "image", "--systemd-min", "254", draft, "oci:"+image+":latest")
	return s.sign(version, s.push(version, draft))
}

// draft starts a release in a layout of its own, and returns its name there.
func (s *site) draft(version, sequence string, flags ...string) string {
	s.Helper()
	if !slices.Contains(flags, "--expires") {
		flags = append(flags, "--expires", "1h")
	}
	draft := filepath.Join(s.TempDir(), "releases") + ":" + version
	s.releasectl(append([]string{"release", "new", "--version", version, "--sequence", sequence, draft}, flags...)...)
	return draft
}

// push pushes a draft as os/server:VERSION, unsigned, and returns its digest.
func (s *site) push(version, draft string) digest.Digest {
	s.Helper()
	name := s.registry.Host + "/os/server:" + version
	s.releasectl("push", "--plain-http", draft, name)
	var shown struct{ Digest digest.Digest }
	if err := json.Unmarshal([]byte(s.releasectl("--output", "json", "release", "show", "--plain-http", name)),
		&shown); err != nil {
		s.Fatal(err)
	}
	return shown.Digest
}

// sign signs a pushed release with cosign.
func (s *site) sign(version string, release digest.Digest) digest.Digest {
	s.Helper()
	if err := s.publisher.Sign(s.Context(), s.registry, s.registry.Host+"/os/server@"+release.String()); err != nil {
		s.Fatalf("release %s: %v", version, err)
	}
	return release
}

// offerAs gives a release another tag.
func (s *site) offerAs(version, name string) {
	s.Helper()
	tools, err := lab.Tools(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	_, err = lab.Tool(s.Context(), tools, "skopeo", "copy", "--quiet", "--insecure-policy",
		"--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false",
		"docker://"+s.registry.Host+"/os/server:"+version, "docker://"+s.registry.Host+"/"+name)
	if err != nil {
		s.Fatal(err)
	}
}

const revocation, successor = "/etc/updatectl/conf.d/90-revoked.toml", "/etc/updatectl/conf.d/50-next.toml"

// revoke configures the host to accept another publisher's key instead of the lost one.
func (s *site) revoke(next *lab.Publisher) {
	s.Helper()
	for name, text := range map[string]string{
		"/etc/updatectl/keys/next.pub": next.Public,
		successor:                      "[[verify.key]]\nfile = \"/etc/updatectl/keys/next.pub\"\n",
		revocation: "[[verify.key]]\nfile = \"/etc/updatectl/keys/release.pub\"\nrevoked = true\n" +
			"reason = \"the laptop was stolen\"\n" +
			"[[verify.key]]\nfile = \"/etc/updatectl/keys/next.pub\"\n",
	} {
		if err := s.host.WriteFile(name, text, 0o644); err != nil {
			s.Fatal(err)
		}
	}
}

// found removes the revocation: both keys count.
func (s *site) found() {
	s.Helper()
	s.host.Must(s.T, "rm", revocation)
}

// vouched expects the evidence of a root to verify, with one signer; "" is the staged root, or otherwise the booted
// one.
func (s *site) vouched(root, signer string) {
	s.Helper()
	args := []string{"--output", "json", "verify"}
	if root != "" {
		args = append(args, root)
	}
	var proven struct{ Vouchers []struct{ Signer string } }
	if err := json.Unmarshal([]byte(s.updatectl(exitDone, args...).Stdout), &proven); err != nil {
		s.Fatal(err)
	}
	if len(proven.Vouchers) != 1 || proven.Vouchers[0].Signer != signer {
		s.Errorf("%s is vouched for by %+v, want %s", root, proven.Vouchers, signer)
	}
}

// TestReleaseCopies signs a release with each tool and copies it with skopeo to another registry and to a layout:
// cosign and hosts accept the signature of every copy.
func TestReleaseCopies(t *testing.T) {
	beside(t, lab.Nspawn)
	b := newBench(t)
	r, mirror := lab.NewRegistry(t, lab.RegistryOptions{}), lab.NewRegistry(t, lab.RegistryOptions{})
	packed := filepath.Join(b.dir, "packed")
	tree := smallTree(t)
	ours := b.packAs(tree, packed+":amd64", "--architecture", "amd64")
	b.packAs(tree, packed+":arm64", "--architecture", "arm64", "--compression", "gzip")
	module := filepath.Join(b.dir, "fix.ko")
	if err := os.WriteFile(module, patchestest.Module{Name: "fix", Release: "6.12.1"}.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	draft := filepath.Join(b.dir, "release") + ":stable"
	b.run(0, "releasectl", "release", "new", "--version", "1.0", "--sequence", "1", "--expires", "1h", draft)
	b.run(0, "releasectl", "release", "add", "image", "--seal", draft, "oci:"+packed+":amd64")
	b.run(0, "releasectl", "release", "add", "image", draft, "oci:"+packed+":arm64")
	b.run(0, "releasectl", "livepatch", "add", "--kernel-release", "6.12.1", "--kernel-version", "#1 SMP",
		"--kernel-build-id", strings.Repeat("ab", 20), draft, module)
	host := b.host(r.Host, mirror.Host)

	for name, sign := range map[string]func(b *bench, reference string) error{
		"releasectl": func(b *bench, reference string) error {
			b.run(0, "releasectl", "sign", "--plain-http", "--key", b.publisher.Key, reference)
			return nil
		},
		"cosign": func(b *bench, reference string) error { return b.publisher.Sign(b.Context(), r, reference) },
	} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			repository := r.Host + "/released/" + name
			b.run(0, "releasectl", "push", "--plain-http", draft, repository+":stable")
			raw := b.tool("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+repository+":stable")
			release := digest.FromString(raw)
			b.run(exitNotTrusted, "updatectl", "--root", host, "check", "--from", repository+":stable")
			if err := sign(b, repository+"@"+release.String()); err != nil {
				t.Fatal(err)
			}
			layout := "oci:" + filepath.Join(b.dir, "layout")
			for _, tag := range []string{"stable", "sha256-" + release.Encoded()} { // the second has the signatures
				b.mirror("docker://"+repository+":"+tag, "docker://"+mirror.Host+"/copied/"+name+":"+tag)
				b.mirror("docker://"+repository+":"+tag, layout+":"+tag)
			}
			for _, place := range []struct {
				name string
				in   *lab.Registry
			}{{repository, r}, {mirror.Host + "/copied/" + name, mirror}, {layout, nil}} {
				b.trusted(host, place.name+":stable", ours, "bundle")
				if place.in == nil {
					continue
				}
				if err := b.publisher.Verify(t.Context(), place.in, place.name+"@"+release.String()); err != nil {
					t.Error(err)
				}
			}
			// Every part was copied: the layout can be staged.
			b.run(exitAvailable, "updatectl", "--root", b.host(), "stage", "--from", layout+":stable")
			var index ocispec.Index
			if err := json.Unmarshal([]byte(raw), &index); err != nil || len(index.Manifests) != 3 {
				t.Errorf("the release lists %d things (%v), want 3: %s", len(index.Manifests), err, raw)
			}
		})
	}
}
