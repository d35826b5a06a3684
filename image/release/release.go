package release

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/machine"
	"github.com/updatectl/updatectl/verify"
)

// Header is what a release says about itself.
type Header struct {
	// Version is its name, which never goes backwards; see Compare.
	Version string `json:"version"`
	// Sequence grows with each release of a publisher.
	Sequence int64 `json:"sequence"`
	// Expires is when the publisher no longer stands behind it.
	Expires time.Time `json:"expires"`
	// MinVersion is the barrier: hosts of older versions go through that one first. "" is none.
	MinVersion string   `json:"min_version,omitempty"`
	Rollout    *Rollout `json:"rollout,omitempty"`
	Notes      string   `json:"notes,omitempty"`
}

// Release is a release index.
type Release struct {
	Digest digest.Digest `json:"digest"`
	Header
	Images      []Image              `json:"images"`
	LivePatches []LivePatch          `json:"live_patches,omitempty"`
	Deltas      []ocispec.Descriptor `json:"deltas,omitempty"`
}

// Image is a root image in a release.
type Image struct {
	Descriptor ocispec.Descriptor `json:"descriptor"`
	// RootDigest seals the image: the composefs digest of the root that it becomes. The zero value is none.
	RootDigest fsverity.Digest `json:"root_digest,omitzero"`
	// KernelRelease is the kernel that the image brings for a full boot.
	KernelRelease string `json:"kernel_release,omitempty"`
	// KernelVersion is the build of it, as uname -v says it; "" when the publisher does not tell.
	KernelVersion string `json:"kernel_version,omitempty"`
	// Compatible is the machine class it is for, "" for every machine.
	Compatible string `json:"compatible,omitempty"`
	// SystemdMin is the systemd that a host has to run to move into it by a soft reboot, 0 for any.
	SystemdMin int `json:"systemd_min,omitempty"`
	// Fixes are the CVE numbers of what its kernel fixes, as far as the publisher names them.
	Fixes []string `json:"fixes,omitempty"`
}

// LivePatch is a live patch in a release, with what binds it to exactly one build of a kernel.
type LivePatch struct {
	Descriptor    ocispec.Descriptor `json:"descriptor"`
	Name          string             `json:"name"`            // of the module
	KernelRelease string             `json:"kernel_release"`  // uname -r
	KernelVersion string             `json:"kernel_version"`  // uname -v
	KernelBuildID string             `json:"kernel_build_id"` // of the GNU note in /sys/kernel/notes
	Fixes         []string           `json:"fixes,omitempty"` // CVE numbers
}

// Parse reads the release in a verified index.
func Parse(v *verify.Verified) (*Release, error) {
	if v.MediaType() != ocispec.MediaTypeImageIndex {
		return nil, fmt.Errorf("%w release: it is a %q and not an OCI index", verify.ErrMalformed, v.MediaType())
	}
	return Read(v.Bytes())
}

// Read reads a release that nobody has vouched for: the publisher's own draft. A host uses Parse.
func Read(content []byte) (*Release, error) {
	var index ocispec.Index
	if err := json.Unmarshal(content, &index); err != nil {
		return nil, fmt.Errorf("%w release: %v", verify.ErrMalformed, err)
	}
	if err := checkType(index); err != nil {
		return nil, err
	}
	r := &Release{Digest: digest.FromBytes(content), Images: []Image{}}
	var err error
	if r.Header, err = readHeader(index.Annotations); err != nil {
		return nil, err
	}
	if len(index.Manifests) > MaxEntries {
		return nil, fmt.Errorf("%w release %s: it lists %d images and artifacts, more than %d", verify.ErrMalformed, r.Version, len(index.Manifests), MaxEntries)
	}
	for n, d := range index.Manifests {
		if err := r.add(d); err != nil {
			return nil, fmt.Errorf("entry %d of release %s: %w", n+1, r.Version, err)
		}
	}
	return r, nil
}

// Is tells whether an index means to be a release, in this format or another: then it must not be taken for an
// ordinary list of images, which never expires.
func Is(content []byte) bool {
	var index ocispec.Index
	if json.Unmarshal(content, &index) != nil {
		return false
	}
	for name := range index.Annotations {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return strings.HasPrefix(index.ArtifactType, family)
}

// checkType refuses what is no release of this format.
func checkType(index ocispec.Index) error {
	switch t := index.ArtifactType; {
	case t == ArtifactType && index.MediaType == ocispec.MediaTypeImageIndex:
		return nil
	case t == ArtifactType:
		return fmt.Errorf("%w release: its media type is %q", verify.ErrMalformed, index.MediaType)
	case strings.HasPrefix(t, family):
		return fmt.Errorf("%w: the release is a %q, and this updatectl reads %q: it needs a newer updatectl", ErrIncompatible, t, ArtifactType)
	default:
		return fmt.Errorf("%w release: its artifact type is %s and not %q", verify.ErrMalformed, excerpt(t), ArtifactType)
	}
}

func readHeader(annotations map[string]string) (Header, error) {
	f := &fields{values: annotations}
	h := Header{
		Version:    need(f, AnnotationVersion, parseVersion),
		Sequence:   need(f, AnnotationSequence, number(MaxSequence)),
		Expires:    need(f, AnnotationExpires, parseTime),
		MinVersion: may(f, AnnotationMinVersion, parseVersion),
		Rollout:    may(f, AnnotationRollout, ParseRollout),
		Notes:      may(f, AnnotationNotes, parseNotes),
	}
	if len(f.errs) == 0 && h.MinVersion != "" && Compare(h.MinVersion, h.Version) >= 0 {
		f.errs = append(f.errs, fmt.Errorf("%s is %s, which is not older than the release itself", AnnotationMinVersion, h.MinVersion))
	}
	return h, f.err("release")
}

// add reads one entry. Kinds that a newer publisher may know are passed over, and so are the manifests that builders
// put beside images for attestations.
func (r *Release) add(d ocispec.Descriptor) error {
	switch {
	case verify.IsManifest(d.MediaType) && d.ArtifactType == "":
		return r.addImage(d)
	case d.ArtifactType == LivePatchType:
		return r.addLivePatch(d)
	case d.ArtifactType == DeltaType:
		if slices.ContainsFunc(r.Deltas, func(other ocispec.Descriptor) bool { return other.Digest == d.Digest }) {
			return fmt.Errorf("%w: the delta %s comes twice", verify.ErrMalformed, d.Digest)
		}
		r.Deltas = append(r.Deltas, d)
		return checkContent(d)
	}
	return nil
}

func (r *Release) addImage(d ocispec.Descriptor) error {
	if p := d.Platform; p == nil || p.OS == "" || p.Architecture == "" {
		return fmt.Errorf("%w: the image %s does not say for which platform it is", verify.ErrMalformed, d.Digest)
	}
	f := &fields{values: d.Annotations}
	i := Image{
		Descriptor:    d,
		RootDigest:    may(f, AnnotationRootDigest, parseRootDigest),
		KernelRelease: may(f, AnnotationKernelRelease, parseKernel),
		KernelVersion: may(f, AnnotationKernelVersion, parseKernelVersion),
		Compatible:    may(f, AnnotationCompatible, ParseClass),
		SystemdMin:    int(may(f, AnnotationSystemdMin, number(maxSystemd))),
		Fixes:         may(f, AnnotationFixes, parseFixes),
	}
	if err := f.err("image " + d.Digest.String()); err != nil {
		return err
	}
	for _, other := range r.Images {
		if samePlatform(*other.Descriptor.Platform, *d.Platform) && other.Compatible == i.Compatible {
			return fmt.Errorf("%w: it has two images for %s", verify.ErrMalformed, i.Audience())
		}
	}
	r.Images = append(r.Images, i)
	return checkContent(d)
}

// ReadLivePatch reads an entry that is a live patch.
func ReadLivePatch(d ocispec.Descriptor) (LivePatch, error) {
	f := &fields{values: d.Annotations}
	p := LivePatch{
		Descriptor:    d,
		Name:          need(f, AnnotationLivePatchName, parseModule),
		KernelRelease: need(f, AnnotationKernelRelease, parseKernel),
		KernelVersion: need(f, AnnotationKernelVersion, parseKernelVersion),
		KernelBuildID: need(f, AnnotationKernelBuildID, parseBuildID),
		Fixes:         may(f, AnnotationFixes, parseFixes),
	}
	return p, f.err("live patch " + d.Digest.String())
}

func (r *Release) addLivePatch(d ocispec.Descriptor) error {
	p, err := ReadLivePatch(d)
	if err != nil {
		return err
	}
	for _, other := range r.LivePatches {
		if other.Name == p.Name && other.KernelBuildID == p.KernelBuildID {
			return fmt.Errorf("%w: it has the live patch %s twice for the kernel %s", verify.ErrMalformed, p.Name, p.KernelRelease)
		}
	}
	r.LivePatches = append(r.LivePatches, p)
	return checkContent(d)
}

// checkContent refuses an entry that cannot be fetched or bounded.
func checkContent(d ocispec.Descriptor) error {
	switch err := d.Digest.Validate(); {
	case err != nil:
		return fmt.Errorf("%w: digest %s: %v", verify.ErrMalformed, excerpt(d.Digest.String()), err)
	case d.Digest.Algorithm() != digest.SHA256:
		return fmt.Errorf("%w: the digest %s is not a sha256 digest", verify.ErrMalformed, excerpt(d.Digest.String()))
	case !verify.IsManifest(d.MediaType):
		return fmt.Errorf("%w: %s is a %s and not a manifest", verify.ErrMalformed, d.Digest, excerpt(d.MediaType))
	case d.Size <= 0 || d.Size > verify.MaxManifest:
		return fmt.Errorf("%w: the manifest %s has %d bytes", verify.ErrMalformed, d.Digest, d.Size)
	}
	return nil
}

func parseRootDigest(text string) (fsverity.Digest, error) {
	d, err := fsverity.Parse(text)
	if err == nil && d.String() != text || d == (fsverity.Digest{}) {
		return fsverity.Digest{}, fmt.Errorf("it is not an fs-verity digest in lower-case hexadecimal digits")
	}
	return d, err
}

// Sealed tells whether the digest of its root is named.
func (i Image) Sealed() bool { return i.RootDigest != (fsverity.Digest{}) }

// samePlatform compares what picks an image.
func samePlatform(a, b ocispec.Platform) bool {
	return a.OS == b.OS && a.Architecture == b.Architecture && a.Variant == b.Variant
}

// Audience names whom an image is for.
func (i Image) Audience() string {
	text := machine.Platform(*i.Descriptor.Platform)
	if i.Compatible != "" {
		text += " of the machine class " + i.Compatible
	}
	return text
}
