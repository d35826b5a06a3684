package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"

	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/verifytest"
)

const (
	twoKeys = "[verify]\nkeys = [\"/etc/updatectl/release.pub\", \"/etc/updatectl/other.pub\"]\nthreshold = 2\n"
	// onlyServer continues the table [source].
	onlyServer = "stream = \"server\"\n[verify]\nkeys = [\"/etc/updatectl/release.pub\"]\n"

	alice = "[[verify.identity]]\nissuer = \"https://issuer.example.org\"\nsubject = \"alice@example.org\"\n" +
		"trust-root = \"/etc/updatectl/trusted_root.json\"\n"
)

// row is one attack: what is published and asked for, by which policy, and how the command must end. A row that ends
// with 10 is something odd that is accepted on purpose; holds then says what makes it harmless.
type row struct {
	name    string
	policy  string
	publish func(*attacker) (reference string)
	before  func(a *attacker, host string) // what the host has seen before
	code    int
	says    string
	holds   func(a *attacker, host string)
}

// TestAttacks is the attack table: whatever is published, the real program ends with its exit code and its sentence,
// stages nothing, does not crash, obeys no escape sequence and stays under 256 MB.
//
// What takes a clock, a signal or more room than a unit test has is tested where it is decided:
//
//	a slow server, an endless one         image/source: TestASlowServerIsGivenUpOn, TestMetadataHasATime,
//	                                      TestASilentServerIsGivenUpOn
//	bounds of entries, metadata, content  image/layer: TestHostileEntries, TestBoundsOfTheWholeImage, TestBombs,
//	                                      TestTooManyFiles
//	nesting and size of JSON              verify: TestContent; image/release: TestMalformedReleases
//	every way to be signed wrong          verify: TestAttacks
//	kills while staging, full disk        image: TestStageKilledAtAnyMoment, TestStageOnAFullDisk
//	the same on a host that runs          integration: TestRefusals
func TestAttacks(t *testing.T) {
	all := newAttacker(t)
	for _, r := range slices.Concat(trustRows(), sourceRows(), mediumRows(), layerRows()) {
		t.Run(r.name, func(t *testing.T) {
			a := all.in(t)
			host := a.host(r.policy)
			reference := r.publish(a)
			if r.before != nil {
				r.before(a, host)
			}
			o := a.run(host, "stage", "--from", reference)
			if o.code != r.code || !strings.Contains(o.stderr, r.says) {
				t.Fatalf("ended with %d, want %d and %q:\n%s%s", o.code, r.code, r.says, o.stdout, o.stderr)
			}
			switch {
			case r.holds != nil:
				r.holds(a, host)
			case r.before != nil:
				a.staged(host) // one root, and that is not this one: gc keeps all there is
				a.check(a.clean(host))
			default:
				a.nothing(host)
			}
		})
	}
}

// trustRows: who signed, and for how long it counts.
func trustRows() []row {
	signer := verifytest.Signing{Subject: "alice@example.org", Issuer: "https://issuer.example.org"}
	image := func(tag string) func(*attacker) string {
		return func(a *attacker) string { return a.reference(tag) }
	}
	keyless := func(tag string, change func(*verifytest.Signing)) func(*attacker) string {
		return func(a *attacker) string {
			s := signer
			change(&s)
			return a.keyless(tag, s)
		}
	}
	// The host has accepted release 7, version 2026.7.
	accepted := func(a *attacker, host string) {
		from := a.released("accepted", "good", release.Header{Version: "2026.7", Sequence: 7}, nil)
		if o := a.run(host, "stage", "--from", from); o.code != exitAvailable {
			a.t.Fatalf("%+v", o)
		}
	}
	header := func(version string, sequence int64) release.Header {
		return release.Header{Version: version, Sequence: sequence}
	}
	return []row{
		{name: "unsigned", publish: image("unsigned"), code: 20, says: "no signature was found"},
		{name: "wrong key", code: 20, says: "none by a configured key", publish: func(a *attacker) string {
			d := a.fresh("stranger")
			a.keyed(d, a.other)
			return a.tag(d, "stranger")
		}},
		{name: "another image's signature", code: 20, says: "the signature by release.pub is for",
			publish: func(a *attacker) string {
				d := a.fresh("borrower")
				lender, err := a.tagged("good")
				a.check(err)
				a.vouched(d.Digest, lender.Digest)
				return a.tag(d, "borrower")
			}},
		{name: "one of two needed", policy: twoKeys, publish: image("good"), code: 20, says: "1 of the 2 signers needed"},
		{name: "same key twice", policy: twoKeys, code: 20, says: "1 of the 2 signers needed",
			publish: func(a *attacker) string {
				d := a.fresh("twice")
				a.check(a.sign(d.Digest))
				a.keyed(d, a.key)
				a.keyed(d, a.key)
				return a.tag(d, "twice")
			}},
		{name: "same key under two names", code: 20, says: "1 of the 2 signers needed", publish: image("good"),
			policy: "[verify]\nkeys = [\"/etc/updatectl/release.pub\", " +
				"\"/etc/updatectl/../updatectl/release.pub\", \"/etc/updatectl/other.pub\"]\nthreshold = 2\n"},
		{name: "another payload type", policy: alice, code: 20, says: "which is no signature of an image",
			publish: func(a *attacker) string {
				d := a.fresh("payload")
				b, err := a.authority.Envelope(signer, "text/plain", verifytest.Statement(d.Digest))
				a.check(err)
				c, err := verifytest.Candidate(b)
				a.bundle(d, c, err)
				return a.tag(d, "payload")
			}},
		{name: "expired certificate", policy: alice, code: 20, says: "its certificate was valid from",
			publish: keyless("expired-cert", func(s *verifytest.Signing) { s.Issued = time.Now().Add(-time.Hour) })},
		{name: "wrong issuer", policy: alice, code: 20, says: `of "https://issuer.example.com"`,
			publish: keyless("issuer", func(s *verifytest.Signing) { s.Issuer = "https://issuer.example.com" })},
		{name: "wrong subject", policy: alice, code: 20, says: `signed by "mallory@example.org"`,
			publish: keyless("subject", func(s *verifytest.Signing) { s.Subject = "mallory@example.org" })},
		{name: "subject in another case", policy: alice, code: 20, says: `signed by "Alice@example.org"`,
			publish: keyless("case", func(s *verifytest.Signing) { s.Subject = "Alice@example.org" })},
		{name: "subject with a terminal's commands", policy: alice, code: 20, says: `\x1b[2J`,
			publish: keyless("terminal", func(s *verifytest.Signing) { s.Subject = "\x1b[2Jalice@example.org" })},
		{name: "log entry of another artifact", policy: alice, code: 20, says: "is not proved by its log entries",
			publish: func(a *attacker) string {
				d := a.fresh("log")
				var b [2]*bundlepb.Bundle
				for n, about := range []digest.Digest{d.Digest, digest.FromString("other")} {
					var err error
					b[n], err = a.authority.Envelope(signer, verify.BundlePayloadType, verifytest.Statement(about))
					a.check(err)
				}
				b[0].VerificationMaterial.TlogEntries = b[1].VerificationMaterial.TlogEntries
				c, err := verifytest.Candidate(b[0])
				a.bundle(d, c, err)
				return a.tag(d, "log")
			}},
		{name: "missing log proof", policy: alice, code: 20, says: "has no entry of a transparency log",
			publish: keyless("unlogged", func(s *verifytest.Signing) { s.NoLog = true })},

		{name: "a list without the end of this key", code: 20, says: "expired on 2020-01-01",
			publish: image("good"), before: func(a *attacker, host string) {
				a.configure(host, "[[verify.key]]\nfile = \"/etc/updatectl/release.pub\"\nnot-after = 2020-01-01\n",
					"[[verify.key]]\nfile = \"/etc/updatectl/other.pub\"\nrevoked = true\n")
			}, holds: func(a *attacker, host string) { a.nothing(host) }},
		{name: "a revoked identity, by another rule", code: 20, says: "alice@example.org signed it and is revoked: gone",
			publish: keyless("revoked", func(*verifytest.Signing) {}), before: func(a *attacker, host string) {
				a.configure(host, strings.Replace(alice, "subject =", "subject-pattern =", 1)+
					"[[verify.identity]]\nissuer-pattern = \".*\"\nsubject = \"alice@example.org\"\n"+
					"revoked = true\nreason = \"gone\"\n")
			}, holds: func(a *attacker, host string) { a.nothing(host) }},
		{name: "release of another stream", policy: onlyServer, code: 22, says: "is of the stream desktop",
			publish: func(a *attacker) string {
				return a.released("desktop", "good", release.Header{Version: "1", Sequence: 1, Stream: "desktop"}, nil)
			}},
		{name: "release of no stream", policy: onlyServer, code: 22, says: "names no stream",
			publish: func(a *attacker) string { return a.released("streamless", "good", header("1", 1), nil) }},
		{name: "image of another stream, on its own", policy: onlyServer, code: 22, says: "an image outside a release",
			publish: image("good")},

		{name: "replayed older release", before: accepted, code: 21, says: "has the sequence 6, and sequence 7",
			publish: func(a *attacker) string { return a.released("older", "next", header("2026.6", 6), nil) }},
		{name: "older sequence with newer version", before: accepted, code: 21, says: "contradict each other",
			publish: func(a *attacker) string { return a.released("forged", "next", header("2026.8", 6), nil) }},
		{name: "another release of the same sequence", before: accepted, code: 21, says: "is not the one with the sequence 7",
			publish: func(a *attacker) string { return a.released("twin", "next", header("2026.7", 7), nil) }},
		{name: "expired release", code: 21, says: "expired at", publish: func(a *attacker) string {
			return a.released("expired", "good", release.Header{Version: "1", Sequence: 1,
				Expires: time.Now().Add(-time.Minute)}, nil)
		}},
		{name: "release whose image is exchanged", code: 20, says: "does not match", publish: func(a *attacker) string {
			d := a.fresh("victim")
			a.tag(d, "victim")
			from := a.released("exchanged", "victim", header("1", 1), nil)
			text, err := os.ReadFile(a.blob(d.Digest))
			a.check(errors.Join(err, os.WriteFile(a.blob(d.Digest), bytes.Replace(text, []byte("sha256:"), []byte("sha256 "),
				1), 0o644)))
			return from
		}},
		{name: "image of another platform", publish: image("foreign"), code: 22, says: "image is for "},
		{name: "release whose image lies about its platform", code: 22, says: "image is for ",
			publish: func(a *attacker) string { return a.released("liar", "foreign", header("1", 1), nil) }},
		{name: "image of another machine class", code: 22, says: "is for the machine class",
			publish: func(a *attacker) string {
				return a.released("class", "good", header("1", 1), func(i *release.Image) { i.Compatible = "example,edge-2" })
			}},
		{name: "image that does not boot", publish: image("noinit"), code: 22, says: "no init"},
	}
}

// sourceRows: manifests, types, digests, and servers that lie.
func sourceRows() []row {
	manifest := func(a *attacker) []byte {
		d, err := a.tagged("good")
		a.check(err)
		text, err := os.ReadFile(a.blob(d.Digest))
		a.check(err)
		return text
	}
	as := func(tag, mediaType string) func(*attacker) string {
		return func(a *attacker) string {
			if tag == "good" {
				return a.signed("as-index", mediaType, append(manifest(a), ' '))
			}
			a.released("r", "good", release.Header{Version: "1", Sequence: 1}, nil)
			d, err := a.tagged("r")
			a.check(err)
			d.MediaType = mediaType
			return a.tag(d, "as-manifest")
		}
	}
	renamed := func(tag, layers string) func(*attacker) string {
		return func(a *attacker) string {
			text := bytes.Replace(manifest(a), []byte(`"layers":`), []byte(layers), 1)
			return a.signed(tag, ocispec.MediaTypeImageManifest, text)
		}
	}
	return []row{
		{name: "duplicate JSON keys", code: 20, says: "twice", publish: renamed("duplicate", `"layers":[],"layers":`)},
		{name: "JSON keys that differ by case", code: 20, says: `which is spelled "layers"`, publish: renamed("cases",
			`"Layers":[],"layers":`)},
		{name: "JSON keys that differ in a letter that counts as s", code: 20, says: `which is spelled "layers"`,
			publish: renamed("folded", `"layers":[],"layer\u017f":`)},
		{name: "JSON key in another case", code: 20, says: `which is spelled "layers"`, publish: renamed("case-of-key",
			`"LAYERS":`)},
		{name: "JSON key in another case in the configuration", code: 20, says: `which is spelled "rootfs"`,
			publish: func(a *attacker) string {
				return a.configured("case-of-config", func(text []byte) []byte {
					return bytes.Replace(text, []byte(`"rootfs":`), []byte(`"rootfs":{},"RootFS":`), 1)
				})
			}},
		{name: "configuration followed by another", code: 20, says: "something after the JSON object",
			publish: func(a *attacker) string {
				return a.configured("second-config", func(text []byte) []byte { return append(text, text...) })
			}},
		{name: "manifest followed by another", code: 20, says: "something after the JSON object",
			publish: func(a *attacker) string {
				return a.signed("second", ocispec.MediaTypeImageManifest, append(manifest(a), manifest(a)...))
			}},
		{name: "manifest that is not UTF-8", code: 20, says: "not UTF-8",
			publish: renamed("latin-1", "\"\xe9\":1,\"layers\":")},
		{name: "deep nesting", code: 20, says: "more than 32 levels", publish: func(a *attacker) string {
			text := append([]byte(`{"schemaVersion":2,"x":`), bytes.Repeat([]byte("["), 1<<20)...)
			return a.signed("deep", ocispec.MediaTypeImageManifest, text)
		}},
		{name: "manifest over the bound", code: 20, says: "more than", publish: func(a *attacker) string {
			return a.signed("large", ocispec.MediaTypeImageManifest, bytes.Repeat([]byte(" "), verify.MaxManifest+1))
		}},
		{name: "manifest served as an index", publish: as("good", ocispec.MediaTypeImageIndex), code: 20,
			says: "it was served as"},
		{name: "index served as a manifest", publish: as("r", ocispec.MediaTypeImageManifest), code: 20,
			says: "it was served as"},
		{name: "layer of another digest algorithm", code: 20, says: "sha256", publish: func(a *attacker) string {
			return a.changed("md5", func(m *ocispec.Manifest, _ *ocispec.Image) {
				m.Layers[0].Digest = "md5:d41d8cd98f00b204e9800998ecf8427e"
			})
		}},
		{name: "digest that is a path", code: 20, says: "sha256", publish: func(a *attacker) string {
			return a.changed("path", func(m *ocispec.Manifest, _ *ocispec.Image) {
				m.Layers[0].Digest = "sha256:../../../etc/passwd"
			})
		}},
		// Signed by whom the host trusts: taken, and shown escaped.
		{name: "version with a terminal's commands", code: exitAvailable,
			publish: func(a *attacker) string {
				return a.changed("tty", func(m *ocispec.Manifest, c *ocispec.Image) {
					c.Config.Labels = map[string]string{ocispec.AnnotationVersion: "1\x1b]0;owned\a\r\u202e\nsigned by\trelease.pub"}
				})
			},
			holds: func(a *attacker, host string) {
				for _, args := range [][]string{{"status"}, {"history"}, {"verify"}, {"--output", "json", "status"}} {
					if o := a.run(host, args...); o.code != 0 || !strings.Contains(o.stdout, "owned") || strings.Contains(o.stdout,
						"\nsigned by") {
						a.t.Errorf("%v: %+v", args, o)
					}
				}
			}},
		{name: "version of a megabyte", code: 20, says: "the version has 1048576 bytes", publish: func(a *attacker) string {
			return a.changed("long", func(m *ocispec.Manifest, c *ocispec.Image) {
				c.Config.Labels = map[string]string{ocispec.AnnotationVersion: strings.Repeat("1", 1<<20)}
			})
		}},
		{name: "notes with a terminal's commands", code: 20, says: "unprintable character",
			publish: func(a *attacker) string {
				a.released("n", "good", release.Header{Version: "1", Sequence: 1, Notes: "harmless"}, nil)
				d, err := a.tagged("n")
				a.check(err)
				text, err := os.ReadFile(a.blob(d.Digest))
				a.check(err)
				return a.signed("notes", d.MediaType, bytes.Replace(text, []byte("harmless"), []byte(`\u001b[2Jx`), 1))
			}},

		{name: "tag moved between check and stage", code: 20, says: "no signature was found",
			publish: func(a *attacker) string {
				registry := a.serve(true, &registry{p: a.publisher, asked: map[string]bool{}})
				from := registry + "/first/good/then/unsigned:latest"
				if o := a.run(a.host(""), "check", "--from", from); o.code != exitAvailable {
					a.t.Fatalf("check: %+v", o)
				}
				return from
			}},
		{name: "mirror that serves another image", code: 20, says: "does not match its digest",
			publish: func(a *attacker) string {
				return a.serve(true, &registry{p: a.publisher, asked: map[string]bool{}}) + "/wrong/next/for/good:latest"
			}},
		{name: "registry without TLS", code: 31, says: "plain HTTP", publish: func(a *attacker) string {
			return a.serve(false, &registry{p: a.publisher, asked: map[string]bool{}}) + "/first/good/then/good:latest"
		}},
		{name: "TLS downgrade", code: 31, says: "without TLS", publish: func(a *attacker) string {
			plain := a.serve(false, &registry{p: a.publisher, asked: map[string]bool{}})
			return a.serve(true, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				http.Redirect(w, req, "http://"+plain+req.URL.Path, http.StatusTemporaryRedirect)
			})) + "/first/good/then/good:latest"
		}},
		{name: "redirect for layers", code: exitAvailable, // an ordinary arrangement: storage elsewhere, which sees no login
			publish: redirected(func(w http.ResponseWriter, content []byte) { w.Write(content) }),
			holds: func(a *attacker, host string) {
				if a.staged(host).Version != "good" {
					a.t.Errorf("staged %+v", a.staged(host))
				}
			}},
		{name: "redirect for layers, to other content", code: 20, says: "does not match",
			publish: redirected(func(w http.ResponseWriter, content []byte) {
				w.Write(bytes.Repeat([]byte("x"),
					len(content)))
			})},
	}
}

// redirected is a registry with a login that has its blobs with somebody else, who must not be shown the login.
func redirected(serve func(w http.ResponseWriter, content []byte)) func(*attacker) string {
	return func(a *attacker) string {
		there := a.serve(true, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if carried := req.Header.Get("Authorization"); carried != "" {
				a.t.Errorf("another host was shown %q", carried)
			}
			content, err := os.ReadFile(a.blob(digest.Digest(req.URL.Path[1:])))
			if err != nil {
				http.NotFound(w, req)
				return
			}
			if content[0] == '{' { // a configuration, or what was signed
				w.Write(content)
				return
			}
			serve(w, content)
		}))
		here := &registry{p: a.publisher, asked: map[string]bool{}}
		host := a.serve(true, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if user, _, _ := req.BasicAuth(); user != "operator" {
				w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			if _, name, blob := strings.Cut(req.URL.Path, "/blobs/"); blob {
				http.Redirect(w, req, "https://"+there+"/"+name, http.StatusTemporaryRedirect)
				return
			}
			here.ServeHTTP(w, req)
		}))
		file := filepath.Join(a.t.TempDir(), "auth.json")
		text, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{
			"auth": base64.StdEncoding.EncodeToString([]byte("operator:secret"))}}})
		a.check(errors.Join(err, os.WriteFile(file, text, 0o600)))
		a.env = append(a.env, "REGISTRY_AUTH_FILE="+file)
		return host + "/first/good/then/good:latest"
	}
}
