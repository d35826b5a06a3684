//go:build lab

package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/updatectl/updatectl/integration/lab"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/verifytest"
)

const (
	buildIssuer  = "https://issuer.example.org"
	buildSubject = "release@example.org"
	identityFile = "/etc/updatectl/conf.d/50-identity.toml"
)

// TestKeyless configures a host to require a key and an identity: it switches when both have signed, names the
// signers, and refuses another subject and another authority. cosign agrees with each verdict on the identity.
func TestKeyless(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "keyless")
	authority, stranger := newAuthority(t), newAuthority(t)
	image := digest.Digest(strings.Replace(s.roots["1"], "-", ":", 1))
	policy := func(who, subject string) string {
		return "[verify]\n" + who + "\n[[verify.identity]]\nissuer = \"" + buildIssuer + "\"\nsubject = \"" + subject +
			"\"\ntrust-root = \"/etc/updatectl/keys/trusted_root.json\"\n"
	}
	const both, alone = "threshold = 2", "keys = []" // the key is in another file
	s.write("/etc/updatectl/keys/trusted_root.json", trustRoot(t, authority))
	s.write(identityFile, policy(both, buildSubject))

	before := s.condition()
	s.complains(exitNotTrusted, "1 of the 2 signers needed", "[verify] threshold", "apply")
	s.attach(stranger, image) // the same names, certified by an authority that the host does not trust
	s.complains(exitNotTrusted, "1 of the 2 signers needed", "[verify] threshold", "apply")
	if err := s.cosignKnows(authority, image, buildSubject); err == nil {
		t.Error("cosign trusts the other authority")
	}
	s.untouched(before)

	s.attach(authority, image)
	if err := s.cosignKnows(authority, image, buildSubject); err != nil {
		t.Error(err)
	}
	if err := s.cosignKnows(authority, image, "other@example.org"); err == nil {
		t.Error("cosign accepts another subject")
	}
	s.write(identityFile, policy(alone, "other@example.org"))
	s.complains(exitNotTrusted, "the policy asks for other@example.org", "check [[verify.identity]]", "apply")
	s.write(identityFile, policy(both, "other@example.org"))
	s.complains(exitNotTrusted, "1 of the 2 signers needed", "[verify] threshold", "apply")
	s.untouched(before)

	s.write(identityFile, policy(both, buildSubject))
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	const who = buildSubject + " (bundle; known to " + buildIssuer + "; entry 4711 of "
	for _, command := range []string{"status", "history"} {
		if text := s.updatectl(exitDone, command).Stdout; !strings.Contains(text, who) ||
			!strings.Contains(text, "release.pub (bundle)") {
			t.Errorf("%s does not say %q and the key:\n%s", command, who, text)
		}
	}
	// Offline, and with the identity alone; not with another trust root.
	s.registry.Stop()
	s.updatectl(exitDone, "verify")
	s.write(identityFile, policy(alone, buildSubject))
	s.updatectl(exitDone, "verify")
	s.write("/etc/updatectl/keys/trusted_root.json", trustRoot(t, stranger))
	s.refused(exitNotTrusted, "none by a configured key or identity", "signed under today's policy", "verify")
}

func newAuthority(t *testing.T) *verifytest.Authority {
	t.Helper()
	a, err := verifytest.New()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func trustRoot(t *testing.T, a *verifytest.Authority) string {
	t.Helper()
	text, err := a.TrustRoot()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// write writes a file in the host.
func (s *site) write(name, text string) {
	s.Helper()
	if err := s.host.WriteFile(name, text, 0o644); err != nil {
		s.Fatal(err)
	}
}

// attach signs an image in os/server as the identity, and publishes the bundle where cosign 3 expects it.
func (s *site) attach(a *verifytest.Authority, image digest.Digest) {
	s.Helper()
	c, err := a.Bundle(verifytest.Signing{Subject: buildSubject, Issuer: buildIssuer}, image)
	if err != nil {
		s.Fatal(err)
	}
	repository, err := remote.NewRepository(s.registry.Host + "/os/server")
	if err != nil {
		s.Fatal(err)
	}
	repository.PlainHTTP = true
	subject, err := repository.Resolve(s.Context(), image.String())
	if err != nil {
		s.Fatal(err)
	}
	bundle := content.NewDescriptorFromBytes(verify.BundleMediaType, c.Bundle)
	if err := repository.Push(s.Context(), bundle, bytes.NewReader(c.Bundle)); err != nil {
		s.Fatal(err)
	}
	_, err = oras.PackManifest(s.Context(), repository, oras.PackManifestVersion1_1, verify.BundleMediaType,
		oras.PackManifestOptions{
			Subject: &subject, Layers: []ocispec.Descriptor{bundle},
			ManifestAnnotations: map[string]string{
				"dev.sigstore.bundle.content":       "dsse-envelope",
				"dev.sigstore.bundle.predicateType": verify.BundlePredicateType,
			},
		})
	if err != nil {
		s.Fatal(err)
	}
}

// cosignKnows returns an error unless cosign finds a signature by an identity on an image in os/server.
func (s *site) cosignKnows(a *verifytest.Authority, image digest.Digest, subject string) error {
	s.Helper()
	tools, err := lab.Tools(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	file := filepath.Join(s.TempDir(), "trusted_root.json") // below /tmp, which the tools see
	if err := os.WriteFile(file, []byte(trustRoot(s.T, a)), 0o644); err != nil {
		s.Fatal(err)
	}
	out, err := lab.Tool(s.Context(), tools, "cosign", "verify", "--trusted-root", file,
		"--certificate-identity", subject,
		"--certificate-oidc-issuer", buildIssuer, "--insecure-ignore-sct", "--use-signed-timestamps",
		"--allow-http-registry", "--allow-insecure-registry", s.registry.Host+"/os/server@"+image.String())
	if err != nil {
		return err
	}
	var found []json.RawMessage
	if err := json.Unmarshal([]byte(out), &found); err != nil || len(found) == 0 {
		s.Errorf("cosign prints %q (%v)", out, err)
	}
	return nil
}
