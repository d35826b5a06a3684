package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/switcher/testtree"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/sign"
	"github.com/updatectl/updatectl/verify/verifytest"
)

// trusting returns a host with two key files and a trust root, and the private keys.
func trusting(t *testing.T) (root string, a, b *ecdsa.PrivateKey) {
	t.Helper()
	root = t.TempDir()
	newKey := func(name string) *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		testtree.File(t, root, "keys/"+name, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
		return key
	}
	a, b = newKey("a.pub"), newKey("b.pub")
	authority, err := verifytest.New()
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := authority.TrustRoot()
	if err != nil {
		t.Fatal(err)
	}
	testtree.File(t, root, "keys/root.json", string(pinned))
	return root, a, b
}

// verifySignedBy returns the verdict of the next run of the agent on an image that a key signed.
func verifySignedBy(t *testing.T, root string, key *ecdsa.PrivateKey) error {
	t.Helper()
	c, err := Load(below(root), "")
	if err != nil {
		return err
	}
	policy, err := c.Policy(below(root), time.Now())
	if err != nil {
		return err
	}
	image := []byte(`{"schemaVersion":2,"config":{},"layers":[]}`)
	bundle, err := sign.Bundle(key, digest.FromBytes(image))
	if err != nil {
		t.Fatal(err)
	}
	signed := []verify.Candidate{{Form: verify.FormBundle, Bundle: bundle}}
	_, err = policy.Verify(image, ocispec.MediaTypeImageManifest, signed)
	return err
}

// TestPolicyIsReadAtEveryRun: replacing files is all that a key rotation or a revocation needs.
func TestPolicyIsReadAtEveryRun(t *testing.T) {
	root, old, next := trusting(t)
	expect := func(when string, oldErr, nextErr error) {
		t.Helper()
		if err := verifySignedBy(t, root, old); !errors.Is(err, oldErr) {
			t.Errorf("%s: the old key: %v, want %v", when, err, oldErr)
		}
		if err := verifySignedBy(t, root, next); !errors.Is(err, nextErr) {
			t.Errorf("%s: the next key: %v, want %v", when, err, nextErr)
		}
	}
	testtree.File(t, root, "etc/updatectl/updatectl.toml", "[verify]\nkeys = ['/keys/a.pub']\n")
	expect("at first", nil, verify.ErrWrongKey)
	testtree.File(t, root, "usr/lib/updatectl/conf.d/10-vendor.toml", "[[verify.key]]\nfile = '/keys/b.pub'\n")
	expect("the next key delivered", nil, nil)
	testtree.File(t, root, "etc/updatectl/conf.d/20-end.toml",
		"[[verify.key]]\nfile = '/keys/b.pub'\n[[verify.key]]\nfile = '/keys/a.pub'\nnot-after = 2020-01-01T00:00:00Z\n")
	expect("the old key ended", verify.ErrExpired, nil)
	testtree.File(t, root, "etc/updatectl/conf.d/30-revoke.toml",
		"[[verify.key]]\nfile = '/keys/a.pub'\nrevoked = true\nreason = 'lost'\n[[verify.key]]\nfile = '/keys/b.pub'\n")
	expect("the old key revoked", verify.ErrRevoked, nil)
	testtree.File(t, root, "run/updatectl/conf.d/40.toml", "[[verify.key]]\nfile = '/keys/a.pub'\n")
	expect("the list overridden", verify.ErrRevoked, verify.ErrWrongKey)
	testtree.File(t, root, "keys/b.pub", "no key")
	testtree.File(t, root, "run/updatectl/conf.d/40.toml", "[[verify.key]]\nfile = '/keys/b.pub'\n")
	expect("a broken key file", ErrConfig, ErrConfig)
}

// TestVerifyLists: a list replaces an earlier one as a whole, no field of an earlier entry is left, and a revocation
// stays.
func TestVerifyLists(t *testing.T) {
	var c Config
	for _, text := range []string{
		"[[verify.key]]\nfile = 'a'\nreason = 'of a'\nrevoked = true\n[[verify.key]]\nfile = 'b'\nreason = 'of b'\n" +
			"[[verify.identity]]\nsubject = 's'\nissuer = 'i'\n",
		"[verify]\nthreshold = 2\n",
		"[[verify.key]]\nfile = 'c'\n[[verify.key]]\nfile = 'd'\nnot-after = 2030-01-02\n" +
			"[[verify.identity]]\nsubject-pattern = 'p'\n",
	} {
		if err := c.decode("test", text); err != nil {
			t.Fatal(err)
		}
	}
	got := c.Verify.Key
	if len(got) != 3 || got[0] != (KeyRule{File: "c"}) || got[1].File != "d" ||
		got[1].NotAfter.Format(time.DateOnly) != "2030-01-02" ||
		got[2] != (KeyRule{File: "a", Revoked: true, Reason: "of a"}) {
		t.Errorf("keys %+v", got)
	}
	if want := []IdentityRule{{SubjectPattern: "p"}}; !slices.Equal(c.Verify.Identity, want) || c.Verify.Threshold != 2 {
		t.Errorf("identities %+v, threshold %d", c.Verify.Identity, c.Verify.Threshold)
	}
}

func TestPolicyComplaints(t *testing.T) {
	root, _, _ := trusting(t)
	identity := "[[verify.identity]]\nissuer = 'i'\nsubject = 's'\ntrust-root = '/keys/root.json'\n"
	for name, c := range map[string]struct{ text, want string }{
		"nothing":                  {"", "keys is empty"},
		"key and identity":         {"[verify]\nkeys = ['/keys/a.pub']\nthreshold = 2\n" + identity, ""},
		"threshold":                {"[verify]\nthreshold = 2\n" + identity, "threshold is 2 with 1 keys and identities"},
		"no file":                  {"[[verify.key]]\nrevoked = true\n", "file is missing"},
		"missing file":             {"[[verify.key]]\nfile = '/keys/none.pub'\n", "none.pub"},
		"log without a trust root": {"[[verify.key]]\nfile = '/keys/a.pub'\nlog = 'required'\n", "it needs a trust root"},
		"unknown log rule":         {"[[verify.key]]\nfile = '/keys/a.pub'\nlog = 'maybe'\n", `log is "maybe"`},
		"key as a trust root":      {strings.Replace(identity, "root.json", "a.pub", 1), "unusable trust root"},
		"missing trust root":       {strings.Replace(identity, "root.json", "none.json", 1), "none.json"},
		"both forms of a subject":  {identity + "subject-pattern = 'x'\n", "exactly or as a pattern"},
		"no issuer":                {strings.Replace(identity, "issuer = 'i'\n", "", 1), "issuer: it must be given"},
		"broken pattern": {
			identity + "[[verify.identity]]\nissuer = 'i'\nsubject-pattern = '('\ntrust-root = '/keys/root.json'\n",
			"missing closing )",
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := testtree.File(t, root, "test.toml", c.text)
			loaded, err := Load(below(root), file)
			if err == nil {
				_, err = loaded.Policy(below(root), time.Now())
			}
			if c.want == "" && err != nil {
				t.Errorf("refused: %v", err)
			}
			if c.want != "" && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want ErrConfig with %q", err, c.want)
			}
		})
	}
}

// TestRestrictionsStick: a later list replaces an earlier one, and no restriction of a key is lost with it, whichever
// file names the key. It makes no key count that no list has any more.
func TestRestrictionsStick(t *testing.T) {
	const both, base = "etc/updatectl/updatectl.toml", "[verify]\nkeys = ['/keys/a.pub', '/keys/b.pub']\n"
	const later, revokesA = "etc/updatectl/conf.d/90.toml",
		"[[verify.key]]\nfile = '/keys/a.pub'\nrevoked = true\nreason = 'stolen'\n"
	for name, c := range map[string]struct {
		base, later string
		want        error // of b
	}{
		"not after, another key revoked": {base + "[[verify.key]]\nfile = '/keys/b.pub'\nnot-after = 2020-01-01\n",
			revokesA, verify.ErrExpired},
		"log, another key revoked": {
			base + "[[verify.key]]\nfile = '/keys/b.pub'\nlog = 'required'\ntrust-root = '/keys/root.json'\n", revokesA,
			verify.ErrLog},
		"not after, listed again without it": {
			base + "[[verify.key]]\nfile = '/keys/b.pub'\nnot-after = 2020-01-01\n",
			"[[verify.key]]\nfile = '/keys/b.pub'\n", verify.ErrExpired},
		"not after, listed again by another name": {
			base + "[[verify.key]]\nfile = '/keys/b.pub'\nnot-after = 2020-01-01\n",
			"[[verify.key]]\nfile = '/keys/b-again.pub'\n", verify.ErrExpired},
		"not after, later": {base + "[[verify.key]]\nfile = '/keys/b.pub'\nnot-after = 2020-01-01\n",
			"[[verify.key]]\nfile = '/keys/b.pub'\nnot-after = 2099-01-01\n", verify.ErrExpired},
		"not after, of a key that no list has any more": {
			"[verify]\nkeys = ['/keys/a.pub']\n[[verify.key]]\nfile = '/keys/b.pub'\nnot-after = 2099-01-01\n",
			"[[verify.key]]\nfile = '/keys/a.pub'\n", verify.ErrWrongKey},
		"no restriction": {base, "[[verify.key]]\nfile = '/keys/a.pub'\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			root, _, b := trusting(t)
			text, err := os.ReadFile(filepath.Join(root, "keys/b.pub"))
			if err != nil {
				t.Fatal(err)
			}
			testtree.File(t, root, "keys/b-again.pub", string(text))
			testtree.File(t, root, both, c.base)
			testtree.File(t, root, later, c.later)
			testtree.File(t, root, "run/updatectl/conf.d/95.toml", "[switch]\nlevel = 'soft'\n") // a list of no keys
			if err := verifySignedBy(t, root, b); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}
