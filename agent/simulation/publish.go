package simulation

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/packing"
	"github.com/updatectl/updatectl/image/publish"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/verify"
)

// Publisher is an OCI layout with signed releases, and a directory that stands for the host in what is read past the
// seam: the keys of the publisher. It is made once and shared by machines, which add only who vouches for what
// they stage.
type Publisher struct {
	root, layout string
	// roots are the identities of the releases' roots, by version; versions is the opposite.
	roots, versions map[string]string
}

// keyFile is where a host has the publisher's key.
const keyFile = "/etc/updatectl/keys/release.pub"

// NewPublisher publishes the releases v1 to vN in a directory.
func NewPublisher(dir string, n int) (*Publisher, error) {
	p := &Publisher{
		root: filepath.Join(dir, "root"), layout: filepath.Join(dir, "layout"),
		roots: map[string]string{}, versions: map[string]string{},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	file := filepath.Join(p.root, keyFile)
	err = errors.Join(os.MkdirAll(filepath.Dir(file), 0o755),
		os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644))
	for _, name := range []string{socket, "web.service"} {
		unit := filepath.Join(p.root, "usr/lib/systemd/system", name)
		err = errors.Join(err, os.MkdirAll(filepath.Dir(unit), 0o755), os.WriteFile(unit, []byte("[Unit]\n"), 0o644))
	}
	for i := 1; i <= n && err == nil; i++ {
		err = p.release(context.Background(), key, dir, i)
	}
	return p, err
}

// release publishes one release with one image.
func (p *Publisher) release(ctx context.Context, key *ecdsa.PrivateKey, dir string, n int) error {
	version := fmt.Sprintf("v%d", n)
	tree := filepath.Join(dir, "tree-"+version)
	if err := os.MkdirAll(filepath.Join(tree, "etc"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tree, "etc/os-release"), []byte("VERSION_ID="+version+"\n"), 0o644); err != nil {
		return err
	}
	epoch := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // a seed must mean the same in every run: so must the digests
	packed, err := packing.Pack(ctx, packing.Recipe{
		Tree: tree, Layout: p.layout, Tag: "image-" + version, Compression: "none", Version: version,
		Architecture: runtime.GOARCH, Epoch: &epoch,
	})
	if err != nil {
		return err
	}
	reference := p.reference(version)
	expires := time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC) // however far the clocks of machines jump
	header := release.Header{Version: version, Sequence: int64(n), Expires: expires}
	if _, err := publish.NewRelease(ctx, reference, header); err != nil {
		return err
	}
	if _, err := publish.AddImage(ctx, reference, p.reference("image-"+version), publish.NewImage{},
		publish.Options{}); err != nil {
		return err
	}
	seal := publish.Seal{Signer: key, Form: verify.FormSimple, Identity: "example.org/os"}
	if _, err := publish.Sign(ctx, reference, seal, publish.Options{}); err != nil {
		return err
	}
	id := packed.Manifest.Digest.Algorithm().String() + "-" + packed.Manifest.Digest.Encoded()
	p.roots[version], p.versions[id] = id, version
	return nil
}

// keepEvidence writes who vouches for an image to where every machine that staged it looks for that.
func (p *Publisher) keepEvidence(i *image.Image) error {
	file := filepath.Join(p.root, rootsDir, i.ID(), "evidence.json")
	text, err := i.Verified.Evidence().Bytes()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o755)
	}
	if err != nil {
		return err
	}
	return durable.WriteFile(file, text, 0o644)
}

// reference names what the layout has under a tag.
func (p *Publisher) reference(tag string) string { return "oci:" + p.layout + ":" + tag }

// name returns how a story calls a root: by its version.
func (p *Publisher) name(root string) string {
	if v, known := p.versions[root]; known {
		return v
	}
	return root
}
