package patches_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/updatectl/updatectl/image/patches"
	"github.com/updatectl/updatectl/image/patches/patchestest"
	"github.com/updatectl/updatectl/image/publish"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/sign"
)

const running = "6.12.48+deb13-amd64"

// publisher signs releases of live patches in a layout.
type publisher struct {
	t      *testing.T
	layout string
	key    *ecdsa.PrivateKey
}

func newPublisher(t *testing.T) *publisher {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return &publisher{t, filepath.Join(t.TempDir(), "layout"), key}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (p *publisher) policy() verify.Policy {
	public, err := sign.PublicKey("release.pub", p.key)
	check(p.t, err)
	return verify.Policy{Keys: []verify.Key{public}}
}

// release publishes a release with these live patches, and reads it as a host does.
func (p *publisher) release(sequence int64, names ...string) (*source.Source, *verify.Verified, *release.Release) {
	p.t.Helper()
	ctx := context.Background()
	reference := "oci:" + p.layout + ":stable"
	_, err := publish.NewRelease(ctx, reference,
		release.Header{Version: "1", Sequence: sequence, Expires: time.Now().Add(time.Hour)})
	check(p.t, err)
	for _, name := range names {
		file := filepath.Join(p.t.TempDir(), name+".ko")
		check(p.t, os.WriteFile(file, moduleOf(name), 0o644))
		_, err := publish.AddLivePatch(ctx, reference, file,
			release.LivePatch{KernelVersion: "#1 SMP", KernelBuildID: "c0ffee0123456789"})
		check(p.t, err)
	}
	_, err = publish.Sign(ctx, reference, publish.Seal{Signer: p.key, Form: verify.FormBundle, Time: time.Now()},
		publish.Options{})
	check(p.t, err)
	src, err := source.Open(reference, source.Options{})
	check(p.t, err)
	d, err := src.Resolve(ctx)
	check(p.t, err)
	content, err := src.Manifest(ctx, d)
	check(p.t, err)
	candidates, err := src.Candidates(ctx, d.Digest)
	check(p.t, err)
	v, err := p.policy().Verify(content, d.MediaType, candidates)
	check(p.t, err)
	r, err := release.Parse(v)
	check(p.t, err)
	return src, v, r
}

// moduleOf returns the live patch with that name.
func moduleOf(name string) []byte {
	return patchestest.Module{Name: name, Release: running, Note: "note of " + name}.Bytes()
}

func names(all []patches.Stored) string {
	var text []string
	for _, s := range all {
		text = append(text, s.Name)
	}
	return strings.Join(text, " ")
}

func TestKeepAndLoad(t *testing.T) {
	ctx := context.Background()
	p, dir := newPublisher(t), filepath.Join(t.TempDir(), "oci")
	s := patches.At(dir)
	if all, err := s.List(ctx); err != nil || all == nil || len(all) != 0 {
		t.Fatalf("a store that is not there has %v, %v", all, err)
	}
	if removed, err := s.GC(ctx, nil); err != nil || len(removed) != 0 {
		t.Fatalf("%v, %v", removed, err)
	}
	src, v, r := p.release(1, "fix_one", "fix_two")
	check(t, s.Keep(ctx, src, v, r.LivePatches))
	all, err := s.List(ctx)
	if err != nil || names(all) != "fix_one fix_two" || all[0].KernelVersion != "#1 SMP" {
		t.Fatalf("%+v, %v", all, err)
	}
	check(t, os.RemoveAll(p.layout)) // the source is not needed any more
	l, err := s.Load(ctx, all[0], p.policy())
	if err != nil || l.Name != "fix_one" || !slices.Equal(l.Content, moduleOf("fix_one")) ||
		string(all[0].Note) != "note of fix_one" || l.Vouchers[0].Signer != "release.pub" {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := s.Load(ctx, all[0], newPublisher(t).policy()); !errors.Is(err, verify.ErrWrongKey) {
		t.Errorf("by another policy: %v", err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	// No temporary files are left.
	if left, _ := filepath.Glob(dir + "/.umoci-*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// The disk is trusted no more than a registry: a change of any part is found.
func TestLoadTrustsNothing(t *testing.T) {
	ctx := context.Background()
	p := newPublisher(t)
	src, v, r := p.release(1, "fix_one")
	keep := func() (patches.Store, string, patches.Stored) {
		dir := filepath.Join(t.TempDir(), "oci")
		s := patches.At(dir)
		check(t, s.Keep(ctx, src, v, r.LivePatches))
		all, err := s.List(ctx)
		check(t, err)
		return s, dir, all[0]
	}
	blob := func(dir string, d digest.Digest) string { return filepath.Join(dir, "blobs/sha256", d.Encoded()) }
	module := digest.FromBytes(moduleOf("fix_one"))
	for name, c := range map[string]struct {
		change func(dir string, s *patches.Stored)
		class  error
	}{
		"module changed": {func(dir string, _ *patches.Stored) { spoil(t, blob(dir, module)) },
			patches.ErrSpoilt},
		"module longer": {func(dir string, _ *patches.Stored) { lengthen(t, blob(dir, module)) },
			patches.ErrSpoilt},
		"module gone": {func(dir string, _ *patches.Stored) { check(t, os.Remove(blob(dir, module))) },
			patches.ErrNotStored},
		"manifest changed": {func(dir string, s *patches.Stored) { spoil(t, blob(dir, s.Descriptor.Digest)) },
			patches.ErrSpoilt},
		"evidence changed": {func(dir string, s *patches.Stored) { spoil(t, blob(dir, s.Evidence)) },
			patches.ErrSpoilt},
		"no evidence": {func(_ string, s *patches.Stored) { s.Evidence = "" }, verify.ErrUnsigned},
		"for another kernel": {func(_ string, s *patches.Stored) { s.KernelBuildID = "0123456789abcdef" },
			verify.ErrUnsigned},
		"under another name": {func(_ string, s *patches.Stored) { s.Name = "fix_two" }, verify.ErrUnsigned},
		"another manifest": {func(_ string, s *patches.Stored) { s.Descriptor.Digest = module },
			verify.ErrUnsigned},
		"index names no module": {func(dir string,
			_ *patches.Stored) {
			check(t, os.Remove(filepath.Join(dir, "index.json")))
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir, stored := keep()
			c.change(dir, &stored)
			if _, err := s.Load(ctx, stored, p.policy()); err == nil || c.class != nil && !errors.Is(err, c.class) ||
				strings.Contains(err.Error(), "unverified stream") {
				t.Errorf("%v, want %v", err, c.class)
			}
			if c.class == nil {
				return
			}
			// Keeping it again repairs it.
			check(t, s.Keep(ctx, src, v, r.LivePatches))
			all, err := s.List(ctx)
			check(t, err)
			if _, err := s.Load(ctx, all[0], p.policy()); err != nil || len(all) != 1 {
				t.Errorf("not repaired: %v, %v", err, all)
			}
		})
	}
}

func spoil(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	check(t, err)
	text[len(text)/2] ^= 1
	check(t, os.WriteFile(file, text, 0o644))
}

func lengthen(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	check(t, err)
	check(t, os.WriteFile(file, append(text, 0), 0o644))
}

// Wrong content, and what is no live patch, is not listed.
func TestKeepRefuses(t *testing.T) {
	ctx := context.Background()
	p, s := newPublisher(t), patches.At(filepath.Join(t.TempDir(), "oci"))
	src, v, r := p.release(1, "fix_one")
	other := r.LivePatches[0]
	other.Name = "fix_two"
	if err := s.Keep(ctx, src, v, []release.LivePatch{other}); !errors.Is(err, patches.ErrModule) {
		t.Errorf("%v", err)
	}
	spoil(t, filepath.Join(p.layout, "blobs/sha256", digest.FromBytes(moduleOf("fix_one")).Encoded()))
	if err := s.Keep(ctx, src, v, r.LivePatches); !errors.Is(err, verify.ErrDigest) {
		t.Errorf("%v", err)
	}
	if all, err := s.List(ctx); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}

// A later release takes over live patches that it lists as well. Its evidence replaces that of the older release when
// that is no longer needed.
func TestReleasesAndGC(t *testing.T) {
	ctx := context.Background()
	p, dir := newPublisher(t), filepath.Join(t.TempDir(), "oci")
	s := patches.At(dir)
	for sequence, list := range [][]string{{"fix_one", "fix_two"}, {"fix_two", "fix_three"}, {}} {
		src, v, r := p.release(int64(sequence+1), list...)
		check(t, s.Keep(ctx, src, v, r.LivePatches))
	}
	all, err := s.List(ctx)
	if err != nil || names(all) != "fix_one fix_two fix_three" || all[1].Evidence != all[2].Evidence ||
		all[0].Evidence == all[1].Evidence {
		t.Fatalf("%s, %v", names(all), err)
	}
	evidence, err := s.Releases(ctx)
	if err != nil || len(evidence) != 3 || evidence[1] != all[1].Evidence || evidence[2] != all[0].Evidence {
		t.Errorf("%v, %v", evidence, err)
	}
	if _, r, err := s.Release(ctx, evidence[0], p.policy()); err != nil || r.Sequence != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	check(t, os.WriteFile(filepath.Join(dir, "blobs/sha256", digest.FromString("left over").Encoded()),
		[]byte("left over"), 0o644))
	removed, err := s.GC(ctx, func(s patches.Stored) bool { return s.Name == "fix_two" })
	if err != nil || !slices.Equal(removed, []string{"fix_one", "fix_three"}) {
		t.Errorf("%v, %v", removed, err)
	}
	if all, err = s.List(ctx); err != nil || names(all) != "fix_two" {
		t.Fatalf("%v, %v", all, err)
	}
	if _, err := s.Load(ctx, all[0], p.policy()); err != nil {
		t.Errorf("what was needed is gone: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(dir, "blobs/sha256"))
	check(t, err)
	if len(left) != 5 { // evidence of two releases, a manifest, its empty configuration, a module
		t.Errorf("%d blobs are left", len(left))
	}
}
