package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A Publisher makes and signs images with other people's tools: umoci, skopeo and cosign. With releasectl alone, a
// test would prove only that the project agrees with itself.
type Publisher struct {
	Key    string // private key file as cosign writes it, encrypted with the empty password
	Public string // the public key, in PEM form

	public string // file with the public key
	tools  string
	dir    string
}

// NewPublisher makes a key pair with cosign; inside the enclosure only.
func NewPublisher(ctx context.Context) (*Publisher, error) {
	tools, err := Tools(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(RunDir(), "publisher-")
	if err != nil {
		return nil, fmt.Errorf("cannot make the publisher's directory: %w", err)
	}
	p := &Publisher{Key: filepath.Join(dir, "release.key"), public: filepath.Join(dir, "release.pub"), tools: tools,
		dir: dir}
	if _, err := p.cosign(ctx, "generate-key-pair", "--output-key-prefix", filepath.Join(dir, "release")); err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(p.public)
	if err != nil {
		return nil, fmt.Errorf("cannot read the public key: %w", err)
	}
	p.Public = string(pem)
	// Without one, cosign 3 asks the servers of the public transparency log how to sign.
	_, err = p.cosign(ctx, "signing-config", "create", "--out", p.signingConfig())
	return p, err
}

func (p *Publisher) signingConfig() string { return filepath.Join(p.dir, "signing-config.json") }

func (p *Publisher) cosign(ctx context.Context, args ...string) (string, error) {
	return Tool(ctx, p.tools, "cosign", args...)
}

// Layout returns a cached OCI layout with a tree as its only image, tagged "latest" and packed by umoci.
func (p *Publisher) Layout(ctx context.Context, tree string) (string, error) {
	return layout(ctx, tree)
}

func layout(ctx context.Context, tree string) (string, error) {
	tools, err := Tools(ctx)
	if err != nil {
		return "", err
	}
	return keep(ctx, "layout", "an image of "+filepath.Base(tree)+", packed by umoci", filepath.Base(tree),
		func(ctx context.Context, path string) error {
			image := path + ":latest"
			for _, args := range [][]string{
				{"init", "--layout", path},
				{"new", "--image", image},
				{"insert", "--image", image, tree, "/"},
			} {
				if _, err := Tool(ctx, tools, "umoci", args...); err != nil {
					return err
				}
			}
			return nil
		})
}

// Push copies a layout's image to a registry with skopeo and returns the manifest's digest.
func (p *Publisher) Push(ctx context.Context, r *Registry, layout, repository string) (string, error) {
	digest := filepath.Join(p.dir, "digest")
	args := []string{"copy", "--insecure-policy", "--quiet", "--preserve-digests", "--digestfile", digest}
	args = append(args, r.skopeo("dest-")...)
	args = append(args, "oci:"+layout+":latest", "docker://"+r.Host+"/"+repository)
	if _, err := Tool(ctx, p.tools, "skopeo", args...); err != nil {
		return "", err
	}
	text, err := os.ReadFile(digest)
	if err != nil {
		return "", fmt.Errorf("cannot read the pushed digest: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Manifest returns the manifest that a registry has under a name.
func (p *Publisher) Manifest(ctx context.Context, r *Registry, repository string) (string, error) {
	args := append([]string{"inspect", "--raw"}, r.skopeo("")...)
	return Tool(ctx, p.tools, "skopeo", append(args, "docker://"+r.Host+"/"+repository)...)
}

// Sign signs "HOST/REPOSITORY@DIGEST" with cosign 3: a bundle, attached as a referrer.
func (p *Publisher) Sign(ctx context.Context, r *Registry, reference string) error {
	args := append([]string{"sign", "--yes", "--key", p.Key, "--signing-config", p.signingConfig()}, r.cosign()...)
	_, err := p.cosign(ctx, append(args, reference)...)
	return err
}

// SignOld signs a reference with cosign 2: a payload and a signature, under a tag made of the digest.
func (p *Publisher) SignOld(ctx context.Context, r *Registry, reference string) error {
	old, err := OldTools(ctx)
	if err != nil {
		return err
	}
	args := append([]string{"sign", "--yes", "--key", p.Key, "--tlog-upload=false"}, r.cosign()...)
	_, err = Tool(ctx, old, "cosign", append(args, reference)...)
	return err
}

// Verify returns an error unless cosign 3 finds a signature by this publisher on a reference.
func (p *Publisher) Verify(ctx context.Context, r *Registry, reference string) error {
	args := append([]string{"verify", "--key", p.public, "--insecure-ignore-tlog=true", "--private-infrastructure"},
		r.cosign()...)
	_, err := p.cosign(ctx, append(args, reference)...)
	return err
}

// Release pushes the image of a tree, signs it and returns the manifest's digest.
func (p *Publisher) Release(ctx context.Context, r *Registry, tree, repository string) (string, error) {
	layout, err := p.Layout(ctx, tree)
	if err != nil {
		return "", err
	}
	digest, err := p.Push(ctx, r, layout, repository)
	if err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(repository, ":")
	return digest, p.Sign(ctx, r, r.Host+"/"+name+"@"+digest)
}
