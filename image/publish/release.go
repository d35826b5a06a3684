package publish

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/errdef"

	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/layout"
	"github.com/updatectl/updatectl/image/patches"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/verify"
)

var (
	// ErrRelease means that a release cannot contain something.
	ErrRelease = errors.New("hosts would refuse it")
	// ErrNoRelease means that something else is published at a reference.
	ErrNoRelease = errors.New("not a release")
	// ErrSigned means that a release has signatures, which would not cover a change.
	ErrSigned = errors.New("the release is signed, and cannot change any more")
)

const (
	// zstdImage is an annotation of images with zstd layers. skopeo and podman add it where it is missing, which
	// changes the index, so that `skopeo copy --preserve-digests` (needed to keep signatures) would refuse to copy it.
	zstdImage = "io.github.containers.compression.zstd"
)

// Drafted is a release that was changed.
type Drafted struct {
	Index   ocispec.Descriptor
	Release *release.Release
	// Replaced means that the tag was that of something else, which is signed.
	Replaced bool
}

// NewRelease begins a release in a layout, which is made if it does not exist, and gives it the tag. The error is an
// ErrRelease if hosts would refuse it.
func NewRelease(ctx context.Context, reference string, h release.Header) (*Drafted, error) {
	draft, err := release.New(h)
	if err != nil {
		return nil, fmt.Errorf("cannot begin %s: %w: %w", reference, ErrRelease, err)
	}
	e, err := openEditor(reference)
	if err != nil {
		return nil, err
	}
	old, err := e.place.target.Resolve(ctx, e.place.tag)
	if errors.Is(err, errdef.ErrNotFound) {
		return e.save(ctx, draft)
	}
	if err != nil {
		return nil, e.place.explain("read", err)
	}
	e.old = &old
	signed, err := e.signed(ctx)
	if err != nil {
		return nil, err
	}
	done, err := e.save(ctx, draft)
	if err == nil {
		done.Replaced = signed && done.Index.Digest != old.Digest
	}
	return done, err
}

// NewImage is what a release says about an image in addition to the image itself.
type NewImage struct {
	KernelRelease string
	KernelVersion string // its build, as in uname -v; needs KernelRelease
	Compatible    string
	SystemdMin    int
	Fixes         []string
	// Seal records the digest of the root that the image becomes.
	Seal bool
}

// AddImage adds an image, or every image of an index, to the release in a layout, and copies it there. The error is an
// ErrRelease or an ErrSigned if that is not possible.
func AddImage(ctx context.Context, reference, from string, n NewImage, o Options) (*Drafted, error) {
	e, draft, err := edit(ctx, reference)
	if err != nil {
		return nil, err
	}
	src, err := openSource(from, o)
	if err != nil {
		return nil, err
	}
	images, err := imagesOf(ctx, src)
	if err != nil {
		return nil, err
	}
	c := &copier{to: e.place, progress: func(ocispec.Descriptor) {}}
	if c.from, err = openPlace(from, o); err != nil {
		return nil, err
	}
	for _, d := range images {
		entry, err := n.entry(ctx, src, d)
		if err != nil {
			return nil, fmt.Errorf("cannot add %s: %w", from, err)
		}
		if err := draft.Add(entry); err != nil {
			return nil, fmt.Errorf("cannot add %s: %w: %w", from, ErrRelease, err)
		}
		if err := c.graph(ctx, bare(d)); err != nil {
			return nil, err
		}
	}
	return e.save(ctx, draft)
}

// imagesOf lists the images at a reference.
func imagesOf(ctx context.Context, src *source.Source) ([]ocispec.Descriptor, error) {
	d, err := src.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	if verify.IsManifest(d.MediaType) {
		return []ocispec.Descriptor{bare(d)}, nil
	}
	content, err := src.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(content, &index); err != nil {
		return nil, fmt.Errorf("cannot read the index %s: %w", d.Digest, err)
	}
	var images []ocispec.Descriptor
	for _, i := range index.Manifests {
		attestation := i.Platform != nil && i.Platform.OS == "unknown" // of docker buildx
		if verify.IsManifest(i.MediaType) && i.ArtifactType == "" && !attestation {
			images = append(images, bare(i))
		}
	}
	if len(images) == 0 {
		return nil, fmt.Errorf("%w: %s has no image", ErrRelease, src)
	}
	return images, nil
}

// entry returns the entry of an image in a release.
func (n NewImage) entry(ctx context.Context, src *source.Source, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	content, err := src.Manifest(ctx, d)
	if err != nil {
		return d, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(content, &m); err != nil {
		return d, fmt.Errorf("cannot read the manifest %s: %w", d.Digest, err)
	}
	if m.ArtifactType != "" {
		return d, fmt.Errorf("%w: %s is of type %q and not an image", ErrRelease, d.Digest, m.ArtifactType)
	}
	c, err := config(ctx, src, m.Config)
	if err != nil {
		return d, err
	}
	d.Platform = &ocispec.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
	if slices.ContainsFunc(m.Layers, inZstd) {
		d.Annotations = map[string]string{zstdImage: "true"}
	}
	i := release.Image{Descriptor: d, KernelRelease: n.KernelRelease, KernelVersion: n.KernelVersion,
		Compatible: n.Compatible, SystemdMin: n.SystemdMin, Fixes: n.Fixes}
	if n.Seal {
		root, err := image.Predict(ctx, src, m.Layers, c.RootFS.DiffIDs)
		if err != nil {
			return d, err
		}
		i.RootDigest = root.Digest
		if i.KernelVersion, err = n.kernelVersion(root.KernelVersions[n.KernelRelease]); err != nil {
			return d, err
		}
	}
	return i.Entry(), nil
}

// kernelVersion returns the build of the kernel: what the publisher says, or what the kernel in the image says, or "".
// The two must not differ.
func (n NewImage) kernelVersion(told string) (string, error) {
	if n.KernelVersion != "" && told != "" && n.KernelVersion != told {
		return "", fmt.Errorf("%w: the kernel %s in the image is %q and not %q", ErrRelease, n.KernelRelease, told,
			n.KernelVersion)
	}
	return cmp.Or(n.KernelVersion, told), nil
}

// inZstd reports whether a layer is compressed with zstd.
func inZstd(layer ocispec.Descriptor) bool { return strings.HasSuffix(layer.MediaType, "+zstd") }

// AddLivePatch packs a kernel module as a live patch, and adds it to the release in a layout. An empty name or kernel
// release is taken from the module; otherwise it must be the same as in the module.
func AddLivePatch(ctx context.Context, reference, file string, p release.LivePatch) (*Drafted, error) {
	e, draft, err := edit(ctx, reference)
	if err != nil {
		return nil, err
	}
	module, err := readModule(file)
	if err != nil {
		return nil, fmt.Errorf("cannot add %s: %w", file, failure.Pathless(err))
	}
	m, err := patches.Parse(module)
	if err == nil {
		p.Name, p.KernelRelease = cmp.Or(p.Name, m.Name), cmp.Or(p.KernelRelease, m.KernelRelease)
		err = m.Check(p)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot add %s: %w: %w", file, ErrRelease, err)
	}
	layer, err := e.place.pushBlob(ctx, patches.PartType, module)
	if err != nil {
		return nil, e.place.explain("write to", err)
	}
	layer.Annotations = map[string]string{ocispec.AnnotationTitle: p.Name + ".ko"}
	d, err := oras.PackManifest(ctx, e.place.target, oras.PackManifestVersion1_1, release.LivePatchType,
		oras.PackManifestOptions{
			Layers: []ocispec.Descriptor{layer},
			// oras would use the current time. The same module must give the same live patch.
			ManifestAnnotations: map[string]string{
				ocispec.AnnotationCreated: time.Unix(0, 0).UTC().Format(time.RFC3339),
			},
		})
	if err != nil {
		return nil, e.place.explain("write to", err)
	}
	p.Descriptor = bare(d)
	if err := draft.Add(p.Entry()); err != nil {
		return nil, fmt.Errorf("cannot add %s: %w: %w", file, ErrRelease, err)
	}
	return e.save(ctx, draft)
}

func readModule(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, patches.MaxModule+1))
}

// AddDelta adds a delta, which another tool made, to the release in a layout, and copies it there.
func AddDelta(ctx context.Context, reference, from string, o Options) (*Drafted, error) {
	e, draft, err := edit(ctx, reference)
	if err != nil {
		return nil, err
	}
	src, err := openSource(from, o)
	if err != nil {
		return nil, err
	}
	d, err := src.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	content, err := src.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(content, &m); err != nil {
		return nil, fmt.Errorf("cannot read the manifest %s: %w", d.Digest, err)
	}
	if m.ArtifactType != release.DeltaType {
		return nil, fmt.Errorf("cannot add %s: %w: its artifact type is %q and not %q", from, ErrRelease,
			m.ArtifactType, release.DeltaType)
	}
	entry := bare(d)
	entry.ArtifactType = m.ArtifactType
	if err := draft.Add(entry); err != nil {
		return nil, fmt.Errorf("cannot add %s: %w: %w", from, ErrRelease, err)
	}
	c := &copier{to: e.place, progress: func(ocispec.Descriptor) {}}
	if c.from, err = openPlace(from, o); err != nil {
		return nil, err
	}
	if err := c.graph(ctx, bare(d)); err != nil {
		return nil, err
	}
	return e.save(ctx, draft)
}

// editor changes the release with a tag in a layout.
type editor struct {
	place *place
	old   *ocispec.Descriptor // what had the tag before
}

func openEditor(reference string) (*editor, error) {
	if !strings.HasPrefix(reference, layout.Prefix) {
		return nil, fmt.Errorf("%w %q: a release is made in a layout and pushed from there", failure.ErrReference,
			reference)
	}
	p, err := openPlace(reference, Options{})
	if err == nil && (p.tag == "" || strings.Contains(p.tag, ":")) {
		err = fmt.Errorf("%w %q: name a tag", failure.ErrReference, reference)
	}
	return &editor{place: p}, err
}

// edit opens the release at a reference. The error is an ErrSigned if it cannot change any more.
func edit(ctx context.Context, reference string) (*editor, *release.Draft, error) {
	src, err := openSource(reference, Options{})
	if err != nil {
		return nil, nil, err
	}
	d, err := src.Resolve(ctx) // before openEditor makes a layout with a mistyped name
	if err != nil {
		return nil, nil, err
	}
	e, err := openEditor(reference)
	if err != nil {
		return nil, nil, err
	}
	e.old = &d
	content, err := src.Manifest(ctx, d)
	if err != nil {
		return nil, nil, err
	}
	draft, err := release.Open(content)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot change %s: %w: %w", reference, ErrRelease, err)
	}
	signed, err := e.signed(ctx)
	if err == nil && signed {
		err = fmt.Errorf("cannot change %s: %w", reference, ErrSigned)
	}
	return e, draft, err
}

// signed reports whether what had the tag before has signatures.
func (e *editor) signed(ctx context.Context) (bool, error) {
	found, err := e.place.source.Candidates(ctx, e.old.Digest)
	return len(found) > 0, err
}

// save writes the draft and moves the tag. What had the tag before is removed if it was a release without signatures.
func (e *editor) save(ctx context.Context, draft *release.Draft) (*Drafted, error) {
	content, err := draft.Bytes()
	if err != nil {
		return nil, err
	}
	r, err := release.Read(content)
	if err != nil {
		return nil, err
	}
	d, err := oras.TagBytes(ctx, e.place.target, ocispec.MediaTypeImageIndex, content, e.place.tag)
	if err != nil {
		return nil, e.place.explain("write to", err)
	}
	return &Drafted{Index: bare(d), Release: r}, e.forget(ctx, d)
}

// forget removes the release that was replaced, but nothing that it lists.
func (e *editor) forget(ctx context.Context, now ocispec.Descriptor) error {
	store, ok := e.place.target.(*oci.Store)
	if e.old == nil || e.old.Digest == now.Digest || !verify.IsIndex(e.old.MediaType) || !ok {
		return nil
	}
	content, err := e.place.source.Manifest(ctx, *e.old)
	if err != nil {
		return err
	}
	signed, err := e.signed(ctx)
	if err != nil || signed || !release.Is(content) {
		return err
	}
	named := false
	err = store.Tags(ctx, "", func(tags []string) error {
		for _, tag := range tags {
			d, err := store.Resolve(ctx, tag)
			if err != nil {
				return err
			}
			named = named || d.Digest == e.old.Digest
		}
		return nil
	})
	if err != nil || named {
		return e.place.explain("read", err)
	}
	store.AutoGC = false
	return e.place.explain("clean up", store.Delete(ctx, bare(*e.old)))
}

// Shown is a published release, unverified.
type Shown struct {
	*release.Release
	Signatures int `json:"signatures"`
}

// ShowRelease reads the release at a reference. Everything in it is only what the registry says. The error is an
// ErrNoRelease for anything else, a release.ErrIncompatible for a release in a newer format, and a verify.ErrMalformed
// for one that hosts refuse.
func ShowRelease(ctx context.Context, reference string, o Options) (*Shown, error) {
	src, err := openSource(reference, o)
	if err != nil {
		return nil, err
	}
	d, err := src.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	content, err := src.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	if !release.Is(content) {
		kind := "an image"
		if verify.IsIndex(d.MediaType) {
			kind = "an index of images"
		}
		return nil, fmt.Errorf("cannot show %s: it is %s, %w", reference, kind, ErrNoRelease)
	}
	r, err := release.Read(content)
	if err != nil {
		return nil, fmt.Errorf("cannot show %s: %w", reference, err)
	}
	found, err := src.Candidates(ctx, d.Digest)
	return &Shown{r, len(found)}, err
}
