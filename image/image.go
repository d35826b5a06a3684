package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/arch"
	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/layer"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/exactjson"
)

var (
	// ErrPlatform means that the image is for another kind of machine.
	ErrPlatform = errors.New("not for this machine")
	// ErrNotBootable means that the image lacks what systemd needs to switch to it.
	ErrNotBootable = errors.New("not bootable")
	// ErrLayer means that a layer is malformed or hostile.
	ErrLayer = layer.ErrLayer
	// ErrNoSpace means that the file system is full.
	ErrNoSpace = store.ErrNoSpace
)

const (
	// configDocker is the media type of an image configuration in Docker's schema 2.
	configDocker = "application/vnd.docker.container.image.v1+json"
	// maxLayerBlob bounds a compressed layer, in bytes. Layers are streamed and never kept.
	maxLayerBlob = 64 << 30
	// maxVersion bounds the publisher's version, in bytes: it is recorded, and shown to people.
	maxVersion = 256
)

// Image is an image for this machine. Its manifest is verified, and everything that the manifest lists is known by
// digest.
type Image struct {
	Verified *verify.Verified // of the manifest
	Manifest ocispec.Manifest
	Config   ocispec.Image
	// Seal is the digest that the staged root must have; the zero value accepts any. It comes from a signed release.
	Seal fsverity.Digest
}

// ID returns the name of the root that this image is staged as.
func (i *Image) ID() string {
	d := i.Verified.Digest()
	return d.Algorithm().String() + "-" + d.Encoded()
}

// Version returns the publisher's version of this image, or "" when it has none.
func (i *Image) Version() string {
	for _, from := range []map[string]string{i.Config.Config.Labels, i.Manifest.Annotations} {
		if v := from[ocispec.AnnotationVersion]; v != "" {
			return v
		}
	}
	return ""
}

// labelKernelMin names the oldest kernel that an image can run on, where its publisher knows better than its C library
// and its systemd say.
const labelKernelMin = "dev.updatectl.kernel.min"

// kernelVersion is like "6.12" or "5.10.3".
var kernelVersion = regexp.MustCompile(`^[0-9]{1,3}(\.[0-9]{1,3}){1,2}$`)

// KernelMin returns the oldest kernel that the publisher says this image can run on, "" when there is no such label.
func (i *Image) KernelMin() string {
	return cmp.Or(i.Config.Config.Labels[labelKernelMin], i.Manifest.Annotations[labelKernelMin])
}

// Open reads a verified manifest, or the one for this platform from a verified index, and its configuration. The error
// is an ErrPlatform, a verify.ErrNotTrusted or a failure.ErrSource.
func Open(ctx context.Context, src *source.Source, v *verify.Verified, platform ocispec.Platform) (*Image, error) {
	if verify.IsIndex(v.MediaType()) {
		var err error
		if v, err = imageFromIndex(ctx, src, v, platform); err != nil {
			return nil, err
		}
	}
	i := &Image{Verified: v}
	if err := exactjson.Unmarshal(v.Bytes(), &i.Manifest); err != nil {
		return nil, fmt.Errorf("%w: cannot read the manifest %s: %v", verify.ErrMalformed, v.Digest(), err)
	}
	if err := i.checkManifest(); err != nil {
		return nil, err
	}
	if err := i.readConfig(ctx, src); err != nil {
		return nil, err
	}
	return i, i.checkPlatform(platform)
}

// imageFromIndex fetches the manifest of the image for a platform.
func imageFromIndex(ctx context.Context, src *source.Source, v *verify.Verified,
	platform ocispec.Platform) (*verify.Verified, error) {
	var index ocispec.Index
	if err := exactjson.Unmarshal(v.Bytes(), &index); err != nil {
		return nil, fmt.Errorf("%w: cannot read the index %s: %v", verify.ErrMalformed, v.Digest(), err)
	}
	d, err := selectEntry(index.Manifests, platform)
	if err != nil {
		return nil, err
	}
	content, err := src.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	return v.Descend(d, content)
}

// selectEntry selects the best entry of an index for a platform. An entry that does not name its platform is selected
// only when it is the only image: its configuration says what it is for.
func selectEntry(entries []ocispec.Descriptor, platform ocispec.Platform) (ocispec.Descriptor, error) {
	match := platforms.OnlyStrict(platform)
	var best *ocispec.Descriptor
	var others, silent []ocispec.Descriptor
	for i, d := range entries {
		switch {
		case !verify.IsManifest(d.MediaType) || d.ArtifactType != "":
		case d.Platform == nil:
			silent = append(silent, d)
		case !match.Match(*d.Platform):
			others = append(others, d)
		case best == nil || match.Less(*d.Platform, *best.Platform):
			best = &entries[i]
		}
	}
	switch {
	case best != nil:
		return *best, nil
	case len(silent) == 1 && len(others) == 0:
		return silent[0], nil
	}
	return ocispec.Descriptor{},
		fmt.Errorf("%w: the image is for %s, and this host is %s", ErrPlatform, platformNames(others),
			arch.Platform(platform))
}

func platformNames(entries []ocispec.Descriptor) string {
	var names []string
	for _, d := range entries {
		if d.Platform.OS != "unknown" { // attestations of docker buildx
			names = append(names, arch.Platform(*d.Platform))
		}
	}
	if len(names) == 0 {
		return "an unnamed platform"
	}
	return strings.Join(names, ", ")
}

// checkManifest refuses a manifest that cannot be that of an OS image.
func (i *Image) checkManifest() error {
	m := i.Manifest
	if t := m.Config.MediaType; t != ocispec.MediaTypeImageConfig && t != configDocker {
		return fmt.Errorf("%w: %s is not an OS image: its configuration is of type %q", verify.ErrMalformed,
			i.Verified.Digest(), t)
	}
	if len(m.Layers) > layer.MaxLayers {
		return fmt.Errorf("%w: the image has %d layers, more than %d", layer.ErrLimit, len(m.Layers), layer.MaxLayers)
	}
	for n, l := range m.Layers {
		if !layer.Known(l.MediaType) {
			return fmt.Errorf("%w: layer %d is of type %q", verify.ErrMalformed, n+1, l.MediaType)
		}
		if l.Size < 0 || l.Size > maxLayerBlob {
			return fmt.Errorf("%w: layer %d has %d bytes, more than %d", layer.ErrLimit, n+1, l.Size,
				int64(maxLayerBlob))
		}
	}
	return nil
}

// readConfig fetches the configuration and checks it against the manifest.
func (i *Image) readConfig(ctx context.Context, src *source.Source) error {
	if size := i.Manifest.Config.Size; size > verify.MaxManifest {
		return fmt.Errorf("%w: the configuration has %d bytes, more than %d", verify.ErrMalformed, size,
			verify.MaxManifest)
	}
	data, err := src.Config(ctx, i.Manifest.Config)
	if err != nil {
		return err
	}
	if err := exactjson.Unmarshal(data, &i.Config); err != nil {
		return fmt.Errorf("%w: cannot read the configuration: %v", verify.ErrMalformed, err)
	}
	if v := i.Version(); len(v) > maxVersion {
		return fmt.Errorf("%w: the version has %d bytes, more than %d", verify.ErrMalformed, len(v), maxVersion)
	}
	if v := i.KernelMin(); v != "" && !kernelVersion.MatchString(v) {
		return fmt.Errorf("%w: %s is %.40q: write a version of the kernel, such as 6.12", verify.ErrMalformed,
			labelKernelMin, v)
	}
	diffs := i.Config.RootFS.DiffIDs
	if len(diffs) != len(i.Manifest.Layers) {
		return fmt.Errorf("%w: %d layers, but the configuration lists %d", verify.ErrMalformed, len(i.Manifest.Layers),
			len(diffs))
	}
	for _, d := range diffs {
		if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 && d.Algorithm() != digest.SHA512 {
			return fmt.Errorf("%w: diff_id %.140q is neither a sha256 nor a sha512 digest", verify.ErrMalformed, d)
		}
	}
	return nil
}

// checkPlatform compares the configuration with the machine.
func (i *Image) checkPlatform(host ocispec.Platform) error {
	p := i.Config.Platform
	if p.Architecture == "" || p.OS == "" {
		return fmt.Errorf("%w: the image does not name its architecture", ErrPlatform)
	}
	if !platforms.OnlyStrict(host).Match(p) {
		return fmt.Errorf("%w: the image is for %s, and this host is %s", ErrPlatform, arch.Platform(p),
			arch.Platform(host))
	}
	return nil
}
