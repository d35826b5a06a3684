package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/cmd/cmdtest"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/printable"
	"github.com/updatectl/updatectl/verify/sign"
	"github.com/updatectl/updatectl/verify/verifytest"
)

// most is what one command may take of the memory, whatever it is served.
const most = 256 << 20

// peak runs a program and complains when it took too much memory. It is a process of its own because a child begins
// with the peak of whoever starts it, and a test under the race detector is large.
func peak() {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
	if got := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10; got > most {
		fmt.Fprintf(os.Stderr, "peak: it took %d MB\n", got>>20)
		os.Exit(99)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// attacker publishes what hosts should not take: in one layout, signed by whomever a row of the table wants.
type attacker struct {
	*publisher
	t       *testing.T
	program string // the real one, without the race detector, whose memory is measured

	other     *ecdsa.PrivateKey     // of nobody that a host knows
	authority *verifytest.Authority // which hosts have pinned
	env       []string              // of the program in this row
}

func newAttacker(t *testing.T) *attacker {
	a := &attacker{publisher: &publisher{dir: t.TempDir()}, t: t}
	a.layout = filepath.Join(a.dir, "layout")
	a.program = filepath.Join(a.dir, "updatectl")
	build := exec.Command("go", "build", "-trimpath", "-o", a.program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the program: %v\n%s", err, out)
	}
	var err error
	a.other, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.check(err)
	a.authority, err = verifytest.New()
	a.check(err)
	a.check(errors.Join(a.makeKey(), a.writePublicKeys(),
		a.publish("good", true, "usr/lib/systemd/systemd"),
		a.publish("next", true, "usr/lib/systemd/systemd", "usr/bin/next"),
		a.publish("unsigned", false, "usr/lib/systemd/systemd", "usr/bin/unsigned"),
		a.publish("noinit", true, "usr/bin/nothing"),
		a.publishFor(map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH], "foreign", true,
			"usr/lib/systemd/systemd")))
	return a
}

func (a *attacker) check(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

// in is the attacker for one row.
func (a *attacker) in(t *testing.T) *attacker {
	row := *a
	row.t, row.env = t, nil
	return &row
}

// host makes a tree for --root. The policy is what stands below [verify]; without one the publisher's key counts.
func (a *attacker) host(policy string) string {
	a.t.Helper()
	host := a.t.TempDir()
	etc := filepath.Join(host, "etc/updatectl")
	if policy == "" {
		policy = "[verify]\nkeys = [\"/etc/updatectl/release.pub\"]\n"
	}
	root, err := a.authority.TrustRoot()
	a.check(errors.Join(err, os.MkdirAll(etc, 0o755),
		os.WriteFile(etc+"/updatectl.toml", []byte("[source]\nimage = \"oci:none:none\"\n"+policy), 0o644),
		os.WriteFile(etc+"/trusted_root.json", root, 0o644)))
	for _, name := range []string{"release.pub", "other.pub"} {
		text, err := os.ReadFile(filepath.Join(a.dir, name))
		a.check(errors.Join(err, os.WriteFile(filepath.Join(etc, name), text, 0o644)))
	}
	return host
}

// configure gives a host more files of configuration, in their order.
func (a *attacker) configure(host string, files ...string) {
	a.t.Helper()
	dir := filepath.Join(host, "etc/updatectl/conf.d")
	a.check(os.MkdirAll(dir, 0o755))
	for n, text := range files {
		a.check(os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.toml", n)), []byte(text), 0o644))
	}
}

// outcome is how a command ended.
type outcome struct {
	code           int
	stdout, stderr string
}

// run runs the real program, and fails the test when it crashed or took too much memory.
func (a *attacker) run(host string, args ...string) outcome {
	a.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("peak", append([]string{a.program, "--root", host}, args...)...)
	cmd.Env = append(append(os.Environ(), "HOME="+host, "GORACE=atexit_sleep_ms=0"), a.env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		a.t.Fatal(err)
	}
	o := outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	if o.code == 99 || o.code < 0 || strings.Contains(o.stderr, "goroutine ") {
		a.t.Fatalf("updatectl %s ended with %d:\n%s", strings.Join(args, " "), o.code, o.stderr)
	}
	for _, out := range []string{o.stdout, o.stderr} {
		if strings.ContainsAny(out, "\x1b\x00\r\u202e") {
			a.t.Errorf("a terminal would obey %q", out)
		}
		if strings.HasPrefix(out, "{") { // JSON
			continue
		}
		for _, problem := range cmdtest.TooWide(out) {
			a.t.Errorf("updatectl %s prints %s", strings.Join(args, " "), problem)
		}
	}
	o.stdout, o.stderr = printable.Unwrap(o.stdout), printable.Unwrap(o.stderr)
	return o
}

// nothing fails the test unless the host is as it was made: no root, no object, no leftover, nothing for gc, and no
// file anywhere that the attacker could have meant.
func (a *attacker) nothing(host string) {
	a.t.Helper()
	a.check(filepath.WalkDir(host, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(host, path)
		for _, place := range []string{"roots", "objects", "staging"} {
			if dir := filepath.Join("var/lib/updatectl", place); strings.HasPrefix(rel, dir+"/") && filepath.Dir(rel) == dir {
				a.t.Errorf("%s is left", rel)
			}
		}
		if strings.Contains(d.Name(), "escape") {
			a.t.Errorf("%s was written", rel)
		}
		return err
	}))
	a.check(a.clean(host))
}

// clean asks gc whether there is anything that nothing needs.
func (a *attacker) clean(host string) error {
	if o := a.run(host, "gc"); o.code != 0 || !strings.Contains(o.stdout, "0 roots and 0 objects removed") {
		return fmt.Errorf("gc: %+v", o)
	}
	return nil
}

// staged is the one root of a host.
func (a *attacker) staged(host string) store.Info {
	a.t.Helper()
	files, err := filepath.Glob(filepath.Join(host, "var/lib/updatectl/roots/*/image.json"))
	if err != nil || len(files) != 1 {
		a.t.Fatalf("roots: %v, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	var info store.Info
	a.check(errors.Join(err, json.Unmarshal(text, &info)))
	return info
}

// reference is a tag of the layout.
func (a *attacker) reference(tag string) string { return "oci:" + a.layout + ":" + tag }

// tag gives content a tag, and returns how to ask for it.
func (a *attacker) tag(d ocispec.Descriptor, tag string) string {
	a.t.Helper()
	d.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	a.check(a.list(d))
	return a.reference(tag)
}

// fresh is an image of this row's own, not signed.
func (a *attacker) fresh(tag string) ocispec.Descriptor {
	a.t.Helper()
	d, err := a.pack(runtime.GOARCH, tag, "usr/lib/systemd/systemd", "usr/bin/"+tag)
	a.check(err)
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// signed publishes a manifest with the publisher's signature.
func (a *attacker) signed(tag, mediaType string, content []byte) string {
	a.t.Helper()
	d, err := a.put(mediaType, content)
	a.check(err)
	a.check(a.sign(d.Digest))
	return a.tag(d, tag)
}

// changed publishes the good image with another manifest and configuration, signed.
func (a *attacker) changed(tag string, change func(*ocispec.Manifest, *ocispec.Image)) string {
	a.t.Helper()
	var m ocispec.Manifest
	var c ocispec.Image
	d, err := a.tagged("good")
	a.check(err)
	text, err := os.ReadFile(a.blob(d.Digest))
	a.check(errors.Join(err, json.Unmarshal(text, &m)))
	text, err = os.ReadFile(a.blob(m.Config.Digest))
	a.check(errors.Join(err, json.Unmarshal(text, &c)))
	before := m.Config
	change(&m, &c)
	if m.Config.Digest == before.Digest {
		text, err = json.Marshal(c)
		a.check(err)
		m.Config, err = a.put(ocispec.MediaTypeImageConfig, text)
		a.check(err)
	}
	text, err = json.Marshal(m)
	a.check(err)
	return a.signed(tag, ocispec.MediaTypeImageManifest, text)
}

// configured publishes the good image with another text of its configuration, signed.
func (a *attacker) configured(tag string, change func([]byte) []byte) string {
	a.t.Helper()
	return a.changed(tag, func(m *ocispec.Manifest, c *ocispec.Image) {
		text, err := json.Marshal(c)
		a.check(err)
		m.Config, err = a.put(ocispec.MediaTypeImageConfig, change(text))
		a.check(err)
	})
}

// layered is the good image with one more layer on top.
func (a *attacker) layered(tag, mediaType string, packed []byte, diff digest.Digest) string {
	a.t.Helper()
	l, err := a.put(mediaType, packed)
	a.check(err)
	return a.changed(tag, func(m *ocispec.Manifest, c *ocispec.Image) {
		m.Layers, c.RootFS.DiffIDs = append(m.Layers, l), append(c.RootFS.DiffIDs, diff)
	})
}

// bundle attaches a bundle to an image as a referrer.
func (a *attacker) bundle(d ocispec.Descriptor, c verify.Candidate, err error) {
	a.t.Helper()
	a.check(err)
	layer, err := a.put(verify.BundleMediaType, c.Bundle)
	a.check(err)
	a.check(a.attach(layer, &d, ""))
}

// keyed attaches a bundle by a key of one's own.
func (a *attacker) keyed(d ocispec.Descriptor, key *ecdsa.PrivateKey) {
	a.t.Helper()
	text, err := sign.Bundle(key, d.Digest)
	a.bundle(d, verify.Candidate{Bundle: text}, err)
}

// keyless is a fresh image with a bundle of the authority.
func (a *attacker) keyless(tag string, s verifytest.Signing) string {
	a.t.Helper()
	d := a.fresh(tag)
	c, err := a.authority.Bundle(s, d.Digest)
	a.bundle(d, c, err)
	return a.tag(d, tag)
}

// vouched lays a signature for one digest beside another image.
func (a *attacker) vouched(beside, about digest.Digest) {
	a.t.Helper()
	payload, signature, err := sign.Simple(a.key, "test", about)
	a.check(err)
	layer, err := a.put(ocispec.MediaTypeImageLayer, payload)
	a.check(err)
	layer.Annotations = map[string]string{
		"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature),
	}
	a.check(a.attach(layer, nil, "sha256-"+beside.Encoded()+".sig"))
}

// released publishes a release of an image, signed.
func (a *attacker) released(tag, image string, h release.Header, change func(*release.Image)) string {
	a.t.Helper()
	if h.Expires.IsZero() {
		h.Expires = time.Now().Add(time.Hour)
	}
	draft, err := release.New(h)
	a.check(err)
	d, err := a.tagged(image)
	a.check(err)
	d.Annotations, d.Platform = nil, &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	i := release.Image{Descriptor: d}
	if change != nil {
		change(&i)
	}
	a.check(draft.Add(i.Entry()))
	text, err := draft.Bytes()
	a.check(err)
	return a.signed(tag, ocispec.MediaTypeImageIndex, text)
}

// serve is a registry over TLS, which the program trusts, or without it.
func (a *attacker) serve(tls bool, handler http.Handler) string {
	a.t.Helper()
	if !tls {
		s := httptest.NewServer(handler)
		a.t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	s := httptest.NewUnstartedServer(handler)
	s.StartTLS()
	a.t.Cleanup(s.Close)
	file := filepath.Join(a.t.TempDir(), "ca.pem")
	text := fmt.Sprintf("-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n",
		base64.StdEncoding.EncodeToString(s.Certificate().Raw))
	a.check(os.WriteFile(file, []byte(text), 0o644))
	a.env = append(a.env, "SSL_CERT_FILE="+file) // all of these servers have the same certificate
	return strings.TrimPrefix(s.URL, "https://")
}
