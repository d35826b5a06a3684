package image

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/sign"
)

// holder signs indexes, and is trusted by a policy of its own.
type holder struct {
	key    *ecdsa.PrivateKey
	policy verify.Policy
}

func newHolder(name string) holder {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	return holder{key, verify.Policy{Keys: []verify.Key{must(sign.PublicKey(name, key))}}}
}

// open verifies an index by this holder's signature and opens its image.
func (h holder) open(b *builder, index ocispec.Descriptor) *Image {
	b.t.Helper()
	content := must(b.source().Manifest(context.Background(), index))
	c := verify.Candidate{Form: verify.FormBundle, Bundle: must(sign.Bundle(h.key, digest.FromBytes(content)))}
	v, err := h.policy.Verify(content, index.MediaType, []verify.Candidate{c})
	if err != nil {
		b.t.Fatal(err)
	}
	img, err := Open(context.Background(), b.source(), v, host)
	if err != nil {
		b.t.Fatal(err)
	}
	return img
}

// TestRenewAfterACrash: the evidence was replaced and the vouchers were not. The next run replaces them.
func TestRenewAfterACrash(t *testing.T) {
	b := newBuilder(t)
	b.layer(ocispec.MediaTypeImageLayer, packLayer(bootable()...))
	ours := b.manifest()
	ours.Platform = &host
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{ours}}
	index.SchemaVersion = 2
	listed := b.json(index.MediaType, index)
	st := newStore(t)
	root := must(Stage(context.Background(), st, b.source(), newHolder("first.pub").open(b, listed), "test", nil))
	info := filepath.Join(root.Dir, "image.json")
	old := must(os.ReadFile(info))
	second := newHolder("second.pub").open(b, listed)
	must(Stage(context.Background(), st, b.source(), second, "test", nil))
	if err := errors.Join(os.Remove(info), os.WriteFile(info, old, 0o444)); err != nil {
		t.Fatal(err)
	}
	must(Stage(context.Background(), st, b.source(), second, "test", nil))
	renewed := must(os.Stat(info))
	if v := must(st.Root(root.ID)).Info.Vouchers; len(v) != 1 || v[0].Signer != "second.pub" {
		t.Errorf("the vouchers are %+v", v)
	}
	must(Stage(context.Background(), st, b.source(), second, "test", nil))
	if again := must(os.Stat(info)); !os.SameFile(renewed, again) {
		t.Error("what is the same was written again")
	}
}

// The evidence of a root is stored beside it. The same policy accepts it again without the source, and no other policy
// does.
func TestEvidenceIsKept(t *testing.T) {
	b := newBuilder(t)
	b.layer(ocispec.MediaTypeImageLayer, packLayer(bootable()...))
	ours := b.manifest()
	ours.Platform = &host
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{ours}}
	index.SchemaVersion = 2
	listed := b.json(index.MediaType, index)
	first, second := newHolder("first.pub"), newHolder("second.pub")
	st := newStore(t)
	root, err := Stage(context.Background(), st, b.source(), first.open(b, listed), "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	again(t, root, first.policy, nil)
	again(t, root, second.policy, verify.ErrWrongKey)
	before := must(os.Stat(filepath.Join(root.Dir, "evidence.json")))

	// It is staged again, signed by another key under another policy.
	renewed, err := Stage(context.Background(), st, b.source(), second.open(b, listed), "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	again(t, renewed, second.policy, nil)
	again(t, renewed, first.policy, verify.ErrWrongKey)
	for _, r := range []store.Root{renewed, must(st.Root(root.ID))} {
		if v := r.Info.Vouchers; len(v) != 1 || v[0].Signer != "second.pub" ||
			!r.Info.VerifiedAt.After(root.Info.VerifiedAt) {
			t.Errorf("vouchers %+v at %v", v, r.Info.VerifiedAt)
		}
		if !r.Info.StagedAt.Equal(root.Info.StagedAt) || r.Info.RootDigest != root.Info.RootDigest {
			t.Errorf("renewing changed what else is known: %+v", r.Info)
		}
	}
	after := must(os.Stat(filepath.Join(root.Dir, "evidence.json")))
	if os.SameFile(before, after) || after.Mode().Perm() != 0o444 {
		t.Errorf("evidence was written over, with mode %o", after.Mode())
	}

	// No change to the file makes anything else pass.
	for name, bend := range map[string]func([]byte) []byte{
		"cut":     func(d []byte) []byte { return d[:len(d)/2] },
		"emptied": func([]byte) []byte { return []byte("{}") },
		"grown":   func(d []byte) []byte { return append(d, '{') },
	} {
		t.Run(name, func(t *testing.T) {
			bad := root
			bad.Dir = t.TempDir()
			data := must(os.ReadFile(filepath.Join(root.Dir, "evidence.json")))
			if err := os.WriteFile(filepath.Join(bad.Dir, "evidence.json"), bend(bytes.Clone(data)),
				0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := bad.Evidence(); !errors.Is(err, verify.ErrMalformed) {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := os.Remove(filepath.Join(root.Dir, "evidence.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := root.Evidence(); !errors.Is(err, store.ErrNoEvidence) {
		t.Errorf("without a file: %v", err)
	}
}

// again checks whether a policy accepts the evidence of a root.
func again(t *testing.T, r store.Root, p verify.Policy, want error) {
	t.Helper()
	e, err := r.Evidence()
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Chain) != 2 || len(e.Signatures) != 1 {
		t.Errorf("%d documents and %d signatures", len(e.Chain), len(e.Signatures))
	}
	v, err := p.Again(e)
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
	if err == nil && v.Digest() != r.Info.Digest {
		t.Errorf("evidence is for %s", v.Digest())
	}
}
