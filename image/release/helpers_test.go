package release

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/arch"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/sign"
)

var (
	today = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = ocispec.Platform{OS: "linux", Architecture: "arm64"}
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// content returns the descriptor of some bytes as a manifest.
func content(text string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(text),
		Size: int64(len(text))}
}

func imageFor(p ocispec.Platform) Image {
	d := content("image for " + arch.Platform(p))
	d.Platform = &p
	return Image{Descriptor: d}
}

var somePatch = LivePatch{
	Descriptor: content("live patch"), Name: "kpatch_1", KernelRelease: "6.12.48+deb13-amd64",
	KernelVersion: "#1 SMP PREEMPT_DYNAMIC Debian 6.12.48-1 (2025-09-20)",
	KernelBuildID: "c0ffee0123456789c0ffee0123456789c0ffee01",
	Fixes:         []string{"CVE-2026-1234", "CVE-2026-23456"},
}

func delta() ocispec.Descriptor {
	d := content("delta")
	d.ArtifactType = DeltaType
	return d
}

// full is a release that uses all annotations.
func full(t testing.TB) *Draft {
	t.Helper()
	d := must(New(Header{
		Version: "2026.11.1", Sequence: 42, Expires: today.AddDate(0, 1, 0), MinVersion: "2026.6",
		Notes:   "fixes\n\tmore",
		Rollout: &Rollout{Start: today, Duration: 72 * time.Hour, Steps: []int{1, 10, 100}},
	}))
	i := imageFor(amd64)
	i.RootDigest[0], i.KernelRelease, i.Compatible, i.SystemdMin = 7, "6.12.48+deb13-amd64", "example,edge-2", 254
	i.Fixes = []string{"CVE-2026-1234"}
	for _, entry := range []ocispec.Descriptor{i.Entry(), imageFor(amd64).Entry(), imageFor(arm64).Entry(),
		somePatch.Entry(), delta()} {
		if err := d.Add(entry); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// vouched signs content and verifies it.
func vouched(t testing.TB, text []byte, mediaType string) *verify.Verified {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	payload, signature, err := sign.Simple(key, "test", digest.FromBytes(text))
	if err != nil {
		t.Fatal(err)
	}
	policy := verify.Policy{Keys: []verify.Key{must(sign.PublicKey("test", key))}}
	v, err := policy.Verify(text, mediaType,
		[]verify.Candidate{{Form: verify.FormSimple, Payload: payload, Signature: signature}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// changed returns the full release after a change, as JSON.
func changed(t testing.TB, change func(*ocispec.Index)) []byte {
	t.Helper()
	var index ocispec.Index
	if err := json.Unmarshal(must(full(t).Bytes()), &index); err != nil {
		t.Fatal(err)
	}
	change(&index)
	return must(json.Marshal(index))
}

func contains(err error, want string) bool { return err != nil && strings.Contains(err.Error(), want) }
