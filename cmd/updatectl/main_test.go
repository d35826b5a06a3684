package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/updatectl/updatectl/cmd/cmdtest"
	"github.com/updatectl/updatectl/docs/schemas"
	"github.com/updatectl/updatectl/image/fetcher"
	"github.com/updatectl/updatectl/image/packing"
	"github.com/updatectl/updatectl/verify/printable"
	"github.com/updatectl/updatectl/verify/sign"
	"github.com/updatectl/updatectl/verify/verifytest"
)

func TestMain(m *testing.M) {
	fetcher.Main()
	testscript.Main(m, map[string]func(){"updatectl": cmdtest.Measured(execute, printable.Unwrap), "peak": peak})
}

// TestScripts runs testdata/*.txt: what a person types, sees and gets as exit code. Every script finds in $WORK:
//
//	layout         images v1 and v2, signed by release.pub; "unsigned", which is not; "noinit", signed and no system;
//	               "other", for another architecture
//	release.pub    the key that signed; other.pub is another one
//	               keyless and keyless-sig, signed by release@example.org of https://issuer.example.org in both forms
//	trusted_root.json  what vouches for that identity; other_root.json is another one
//	host           a tree for --root with a configuration that follows v1
//
// $REGISTRY serves the layout by HTTP; see release_test.go for it and for the commands that make releases.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "record": changeRecord, "follow": follow, "kernel": setKernel,
			"obeys": obeys,
			"sign-again": func(ts *testscript.TestScript, _ bool, args []string) {
				d, err := theirs(ts).tagged(args[0])
				ts.Check(err)
				ts.Check(theirs(ts).signWith(theirs(ts).other, d.Digest))
			},
			"release":  func(ts *testscript.TestScript, neg bool, args []string) { theirs(ts).makeRelease(ts, neg, args) },
			"exchange": func(ts *testscript.TestScript, neg bool, args []string) { theirs(ts).exchange(ts, neg, args) },
			"spoil":    func(ts *testscript.TestScript, neg bool, args []string) { theirs(ts).spoil(ts, neg, args) },
			"serve-as": func(ts *testscript.TestScript, neg bool, args []string) { theirs(ts).serveAs(ts, neg, args) },
		},
	})
}

// exits runs a command that must end with the given code: exits CODE updatectl ARGS...
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE command args...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var status interface{ ExitCode() int }
	if errors.As(err, &status) {
		code = status.ExitCode()
	} else if err != nil {
		ts.Fatalf("cannot run %s: %v", args[1], err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("%v ended with %d, want %s", args[1:], code, args[0])
	}
}

// obeys validates each line of a file: obeys SCHEMA FILE. A file in which a document takes several lines ends in .json.
func obeys(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: obeys SCHEMA FILE")
	}
	text := ts.ReadFile(args[1])
	documents := []string{text}
	if strings.HasSuffix(args[1], ".jsonl") {
		documents = strings.Split(strings.TrimSpace(text), "\n")
	}
	for _, document := range documents {
		ts.Check(schemas.CheckAs(args[0], []byte(document)))
	}
}

func setup(env *testscript.Env) error {
	p := &publisher{dir: env.WorkDir, layout: filepath.Join(env.WorkDir, "layout")}
	env.Values[publisher{}] = p
	p.serve(env)
	return errors.Join(
		p.makeKey(), p.writePublicKeys(),
		p.publish("v1", true, "usr/lib/systemd/systemd", "usr/lib/systemd/libsystemd-shared-257.so"),
		p.publish("v2", true, "usr/lib/systemd/systemd", "usr/lib/systemd/libsystemd-shared-257.so", "usr/bin/new"),
		p.publish("unsigned", false, "usr/lib/systemd/systemd", "usr/bin/unsigned"),
		p.publish("noinit", true, "usr/bin/nothing"),
		p.publishFor(map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH], "other", true,
			"usr/lib/systemd/systemd"),
		p.configure("host", "release.pub", env.Getenv("REGISTRY")),
		p.publishKeyless(),
	)
}

// theirs is the publisher of a script.
func theirs(ts *testscript.TestScript) *publisher { return ts.Value(publisher{}).(*publisher) }

// publishKeyless signs an image as somebody whom an authority knows, and another one in the older form.
func (p *publisher) publishKeyless() error {
	authority, err := verifytest.New()
	if err != nil {
		return err
	}
	other, err := verifytest.New()
	if err != nil {
		return err
	}
	for name, a := range map[string]*verifytest.Authority{"trusted_root.json": authority, "other_root.json": other} {
		text, err := a.TrustRoot()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(p.dir, name), text, 0o644); err != nil {
			return err
		}
	}
	who := verifytest.Signing{Subject: "release@example.org", Issuer: "https://issuer.example.org"}
	d, err := p.pack(runtime.GOARCH, "keyless", "usr/lib/systemd/systemd", "usr/bin/keyless")
	if err != nil {
		return err
	}
	c, err := authority.Bundle(who, d.Digest)
	if err != nil {
		return err
	}
	layer, err := p.put("application/vnd.dev.sigstore.bundle.v0.3+json", c.Bundle)
	if err != nil {
		return err
	}
	if err := p.attach(layer, &ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size},
		""); err != nil {
		return err
	}
	if d, err = p.pack(runtime.GOARCH, "keyless-sig", "usr/lib/systemd/systemd", "usr/bin/keyless-sig"); err != nil {
		return err
	}
	if c, err = authority.Simple(who, verifytest.SimplePayload(d.Digest)); err != nil {
		return err
	}
	if layer, err = p.put("application/vnd.dev.cosign.simplesigning.v1+json", c.Payload); err != nil {
		return err
	}
	layer.Annotations = map[string]string{
		"dev.cosignproject.cosign/signature":   base64.StdEncoding.EncodeToString(c.Signature),
		"dev.sigstore.cosign/certificate":      string(c.Certificate),
		"dev.sigstore.cosign/bundle":           string(c.LogEntry),
		"dev.sigstore.cosign/rfc3161timestamp": string(c.Timestamp),
	}
	return p.attach(layer, nil, "sha256-"+d.Digest.Encoded()+".sig")
}

// publisher makes small images by the same code as releasectl does.
type publisher struct {
	dir, layout string
	key, other  *ecdsa.PrivateKey
}

func (p *publisher) makeKey() (err error) {
	if p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err == nil {
		p.other, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return err
}

func (p *publisher) writePublicKeys() error {
	for name, key := range map[string]*ecdsa.PrivateKey{"release.pub": p.key, "other.pub": p.other} {
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return err
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		if err := os.WriteFile(filepath.Join(p.dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (p *publisher) publish(tag string, signed bool, programs ...string) error {
	return p.publishFor(runtime.GOARCH, tag, signed, programs...)
}

func (p *publisher) publishFor(architecture, tag string, signed bool, programs ...string) error {
	d, err := p.pack(architecture, tag, programs...)
	if err != nil || !signed {
		return err
	}
	return p.sign(d.Digest)
}

func (p *publisher) pack(architecture, tag string, programs ...string) (ocispec.Descriptor, error) {
	tree := filepath.Join(p.dir, "trees", tag)
	files := map[string]string{
		"usr/lib/os-release": "ID=test\nPRETTY_NAME=\"Test " + tag + "\"\nVERSION_ID=" + tag + "\n",
		"etc/hostname":       "test\n",
	}
	for _, name := range programs {
		files[name] = "#!/bin/sh\n# " + name + "\n"
	}
	for name, text := range files {
		file := filepath.Join(tree, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o755)); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	packed, err := packing.Pack(context.Background(), packing.Recipe{Tree: tree, Layout: p.layout, Tag: tag,
		Compression: "zstd", Version: tag, Architecture: architecture})
	return packed.Manifest, err
}

// sign attaches a signature in cosign's older form: a manifest under a tag made of the digest.
func (p *publisher) sign(d digest.Digest) error { return p.signWith(p.key, d) }

func (p *publisher) signWith(key *ecdsa.PrivateKey, d digest.Digest) error {
	payload, signature, err := sign.Simple(key, "test", d)
	if err != nil {
		return err
	}
	layer, err := p.put(ocispec.MediaTypeImageLayer, payload)
	if err != nil {
		return err
	}
	layer.Annotations = map[string]string{
		"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature),
	}
	return p.attach(layer, nil, "sha256-"+d.Encoded()+".sig")
}

// attach publishes a layer in a manifest of its own, under a tag or as a referrer.
func (p *publisher) attach(layer ocispec.Descriptor, subject *ocispec.Descriptor, tag string) error {
	config, err := p.put(ocispec.MediaTypeImageConfig, []byte("{}"))
	if err != nil {
		return err
	}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Subject: subject,
		Layers: []ocispec.Descriptor{layer}}
	m.SchemaVersion = 2
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	manifest, err := p.put(ocispec.MediaTypeImageManifest, text)
	if err != nil {
		return err
	}
	if tag != "" {
		manifest.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	}
	return p.list(manifest)
}

func (p *publisher) put(mediaType string, content []byte) (ocispec.Descriptor, error) {
	d := digest.FromBytes(content)
	file := filepath.Join(p.layout, "blobs", "sha256", d.Encoded())
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}, os.WriteFile(file, content,
		0o644)
}

func (p *publisher) list(d ocispec.Descriptor) error {
	file := filepath.Join(p.layout, "index.json")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var index ocispec.Index
	if err := json.Unmarshal(text, &index); err != nil {
		return err
	}
	name := d.Annotations[ocispec.AnnotationRefName]
	index.Manifests = slices.DeleteFunc(index.Manifests, func(old ocispec.Descriptor) bool {
		return name != "" && old.Annotations[ocispec.AnnotationRefName] == name
	})
	index.Manifests = append(index.Manifests, d)
	if text, err = json.Marshal(index); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// configure makes a tree for --root that follows v1 and trusts the key.
func (p *publisher) configure(host, key, registry string) error {
	text := fmt.Sprintf("[source]\nimage = \"oci:%s:v1\"\nplain-http = [%q]\n"+
		"[verify]\nkeys = [\"/etc/updatectl/keys/release.pub\"]\n", p.layout, registry)
	dir := filepath.Join(p.dir, host, "etc/updatectl")
	pub, err := os.ReadFile(filepath.Join(p.dir, key))
	return errors.Join(err, os.MkdirAll(filepath.Join(dir, "keys"), 0o755),
		os.WriteFile(filepath.Join(dir, "updatectl.toml"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(dir, "keys/release.pub"), pub, 0o644))
}
