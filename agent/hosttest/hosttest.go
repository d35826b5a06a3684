// Package hosttest makes hosts, records and images for the tests of the agent's packages. Their files are in a
// temporary directory of the test.
package hosttest

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/machine"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/testtree"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/sign"
)

// Kernel has the facts of a host in these tests: the host root runs, on a kernel with a build id.
var Kernel = facts.Facts{
	Root: switcher.HostRoot, BootID: "boot-1", Architecture: runtime.GOARCH, Systemd: 257,
	KernelRelease: "6.12.48", KernelVersion: "#1 SMP", KernelBuildID: "c0ffee0123456789",
}

// New returns a host in a temporary directory, with the default configuration and its state directories.
func New(t *testing.T) *host.Host {
	t.Helper()
	h := host.On(machine.Host(t.TempDir(), record.StateDir), zap.NewNop())
	Prepare(t, h)
	return h
}

// Prepare gives a host the default configuration, and makes its state directories.
func Prepare(t *testing.T, h *host.Host) {
	t.Helper()
	h.Config = config.Default()
	testtree.File(t, h.Machine.Root, record.StateDir+"/.keep", "")
	testtree.File(t, h.Machine.Root, switcher.RunDir+"/.keep", "")
}

// OnTheWay returns the record of a host that is on its way between two roots, in its first attempt.
func OnTheWay(verb, from, target string, good ...string) *record.Record {
	return &record.Record{
		Phase: record.PhaseTrying, Good: good, Bad: map[string]record.Bad{}, Accepted: map[string]release.Mark{},
		Attempts: map[string]int{target: 1}, Failed: map[string]record.Failed{},
		Switch: &record.Switch{Verb: verb, Expectation: level.Expectation{From: from, Target: target, BootID: "b"}},
	}
}

// Image returns a verified image that was never published. Every call returns the same manifest, signed by a new key.
func Image(t *testing.T) *image.Image {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &image.Image{Verified: signed(t, key)}
}

// signed returns a manifest that a key has signed. Every call returns the same manifest.
func signed(t *testing.T, key ed25519.PrivateKey) *verify.Verified {
	t.Helper()
	text := []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{},"layers":[]}`)
	payload, signature, err := sign.Simple(key, "test", digest.FromBytes(text))
	if err != nil {
		t.Fatal(err)
	}
	public, err := sign.PublicKey("test", key)
	if err != nil {
		t.Fatal(err)
	}
	v, err := verify.Policy{Keys: []verify.Key{public}}.Verify(text, ocispec.MediaTypeImageManifest,
		[]verify.Candidate{{Form: verify.FormSimple, Payload: payload, Signature: signature}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// KeyFile is the public key that signed the roots of [Root].
const KeyFile = "/etc/updatectl/keys/release.pub"

// Root puts a root with evidence on the disk of a host, which is configured to trust the key that signed it, and
// returns its identity. The root has no files.
func Root(t *testing.T, h *host.Host) string {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	testtree.File(t, h.Machine.Root, KeyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	h.Config.Verify.Keys = []string{KeyFile}
	v := signed(t, key)
	evidence, err := v.Evidence().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	id := v.Digest().Algorithm().String() + "-" + v.Digest().Encoded()
	for name, text := range map[string]string{
		"root.cfs": "", "evidence.json": string(evidence), "image.json": `{"schema": "` + store.Schema + `", "new_bytes": 0}`,
	} {
		testtree.File(t, h.Machine.Root, record.StateDir+"/roots/"+id+"/"+name, text)
	}
	return id
}

// NextRun returns the host as the next command finds it, which reads the policy anew.
func NextRun(h *host.Host) *host.Host {
	next := host.On(h.Machine, h.Log)
	next.Config, next.PolicyEtc = h.Config, h.PolicyEtc
	return next
}
