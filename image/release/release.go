package release

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/arch"
	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/exactjson"
)

// Header has the annotations of a release.
type Header struct {
	// Version is the version of the release. It never goes backwards; see Compare.
	Version string `json:"version"`
	// Sequence grows with each release of the publisher.
	Sequence int64 `json:"sequence"`
	// Stream names the series of releases that this one belongs to, such as the stable one of a product, "" if the
	// publisher names none. Sequence and version are those of the stream.
	Stream string `json:"stream,omitempty"`
	// Expires is when hosts stop accepting the release.
	Expires time.Time `json:"expires"`
	// MinVersion is a barrier: hosts with older versions apply that one first. "" means none.
	MinVersion string   `json:"min_version,omitempty"`
	Rollout    *Rollout `json:"rollout,omitempty"`
	Notes      string   `json:"notes,omitempty"`
}

// Release is a release: an index and what it says.
type Release struct {
	Digest digest.Digest `json:"digest"`
	Header
	Images      []Image              `json:"images"`
	LivePatches []LivePatch          `json:"live_patches,omitempty"`
	Deltas      []ocispec.Descriptor `json:"deltas,omitempty"`
}

// Image is an image in a release.
type Image struct {
	Descriptor ocispec.Descriptor `json:"descriptor"`
	// RootDigest seals the image: it is the composefs digest of the root that the image becomes. The zero value means
	// that the image is not sealed.
	RootDigest fsverity.Digest `json:"root_digest,omitzero"`
	// KernelRelease is the release of the kernel in the image, which a full reboot boots.
	KernelRelease string `json:"kernel_release,omitempty"`
	// KernelVersion is the build of that kernel, as in uname -v; "" if the publisher does not say.
	KernelVersion string `json:"kernel_version,omitempty"`
	// Compatible is the machine class that the image is for, "" for every machine.
	Compatible string `json:"compatible,omitempty"`
	// SystemdMin is the oldest version of systemd that a host may run to switch to the image by a soft reboot, 0 for
	// any.
	SystemdMin int `json:"systemd_min,omitempty"`
	// Fixes are the CVE numbers that the kernel fixes, as far as the publisher lists them.
	Fixes []string `json:"fixes,omitempty"`
}

// LivePatch is a live patch in a release, bound to exactly one build of a kernel.
type LivePatch struct {
	Descriptor    ocispec.Descriptor `json:"descriptor"`
	Name          string             `json:"name"`            // of the module
	KernelRelease string             `json:"kernel_release"`  // uname -r
	KernelVersion string             `json:"kernel_version"`  // uname -v
	KernelBuildID string             `json:"kernel_build_id"` // in the GNU note of /sys/kernel/notes, in hex
	Fixes         []string           `json:"fixes,omitempty"` // CVE numbers
}

// Parse reads the release in a verified index. The error is a verify.ErrMalformed or an ErrIncompatible.
func Parse(v *verify.Verified) (*Release, error) {
	if v.MediaType() != ocispec.MediaTypeImageIndex {
		return nil, fmt.Errorf("%w release: it is of type %q and not an OCI index", verify.ErrMalformed, v.MediaType())
	}
	return Read(v.Bytes())
}

// Read reads a release that is not verified, such as the publisher's draft. Hosts use Parse.
func Read(content []byte) (*Release, error) {
	var index ocispec.Index
	if err := exactjson.Unmarshal(content, &index); err != nil {
		return nil, fmt.Errorf("%w release: cannot read it: %v", verify.ErrMalformed, err)
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
		return nil, fmt.Errorf("%w release %s: it lists %d images and artifacts, more than %d", verify.ErrMalformed,
			r.Version, len(index.Manifests), MaxEntries)
	}
	for n, d := range index.Manifests {
		if err := r.add(d); err != nil {
			return nil, fmt.Errorf("entry %d of release %s: %w", n+1, r.Version, err)
		}
	}
	return r, nil
}

// Is reports whether an index is meant to be a release, in this format or another. It must not be used as an ordinary
// index of images, which never expires.
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

// checkType refuses an index that is not a release in this format.
func checkType(index ocispec.Index) error {
	switch t := index.ArtifactType; {
	case t == ArtifactType && index.MediaType == ocispec.MediaTypeImageIndex:
		return nil
	case t == ArtifactType:
		return fmt.Errorf("%w release: its media type is %q", verify.ErrMalformed, index.MediaType)
	case strings.HasPrefix(t, family):
		return fmt.Errorf("%w: the release is of type %q, and this updatectl reads %q: install a newer updatectl",
			ErrIncompatible, t, ArtifactType)
	default:
		return fmt.Errorf("%w release: its artifact type is %s and not %q", verify.ErrMalformed, excerpt(t),
			ArtifactType)
	}
}

func readHeader(annotations map[string]string) (Header, error) {
	f := &fields{values: annotations}
	h := Header{
		Version:    required(f, AnnotationVersion, parseVersion),
		Sequence:   required(f, AnnotationSequence, number(MaxSequence)),
		Stream:     optional(f, AnnotationStream, ParseStream),
		Expires:    required(f, AnnotationExpires, parseTime),
		MinVersion: optional(f, AnnotationMinVersion, parseVersion),
		Rollout:    optional(f, AnnotationRollout, ParseRollout),
		Notes:      optional(f, AnnotationNotes, parseNotes),
	}
	if len(f.errs) == 0 && h.MinVersion != "" && Compare(h.MinVersion, h.Version) >= 0 {
		f.errs = append(f.errs,
			fmt.Errorf("%s is %s, which is not older than the release itself", AnnotationMinVersion, h.MinVersion))
	}
	return h, f.err("release")
}

// add reads an entry. Entries of unknown kinds, which a newer publisher may have made, are ignored, and so are the
// attestations that builders add to images.
func (r *Release) add(d ocispec.Descriptor) error {
	switch {
	case verify.IsManifest(d.MediaType) && d.ArtifactType == "":
		return r.addImage(d)
	case d.ArtifactType == LivePatchType:
		return r.addLivePatch(d)
	case d.ArtifactType == DeltaType:
		if slices.ContainsFunc(r.Deltas, func(other ocispec.Descriptor) bool { return other.Digest == d.Digest }) {
			return fmt.Errorf("%w: it lists the delta %s twice", verify.ErrMalformed, d.Digest)
		}
		r.Deltas = append(r.Deltas, d)
		return checkContent(d)
	}
	return nil
}

func (r *Release) addImage(d ocispec.Descriptor) error {
	if p := d.Platform; p == nil || p.OS == "" || p.Architecture == "" {
		return fmt.Errorf("%w: the image %s does not name its platform", verify.ErrMalformed, d.Digest)
	}
	f := &fields{values: d.Annotations}
	i := Image{
		Descriptor:    d,
		RootDigest:    optional(f, AnnotationRootDigest, parseRootDigest),
		KernelRelease: optional(f, AnnotationKernelRelease, parseKernel),
		KernelVersion: optional(f, AnnotationKernelVersion, parseKernelVersion),
		Compatible:    optional(f, AnnotationCompatible, ParseClass),
		SystemdMin:    int(optional(f, AnnotationSystemdMin, number(maxSystemd))),
		Fixes:         optional(f, AnnotationFixes, parseFixes),
	}
	if err := f.err("image " + d.Digest.String()); err != nil {
		return err
	}
	for _, other := range r.Images {
		if samePlatform(*other.Descriptor.Platform, *d.Platform) && other.Compatible == i.Compatible {
			return fmt.Errorf("%w: it lists two images for %s", verify.ErrMalformed, i.Audience())
		}
	}
	r.Images = append(r.Images, i)
	return checkContent(d)
}

// ReadLivePatch reads the entry of a live patch. The error is a verify.ErrMalformed.
func ReadLivePatch(d ocispec.Descriptor) (LivePatch, error) {
	f := &fields{values: d.Annotations}
	p := LivePatch{
		Descriptor:    d,
		Name:          required(f, AnnotationLivePatchName, parseModule),
		KernelRelease: required(f, AnnotationKernelRelease, parseKernel),
		KernelVersion: required(f, AnnotationKernelVersion, parseKernelVersion),
		KernelBuildID: required(f, AnnotationKernelBuildID, parseBuildID),
		Fixes:         optional(f, AnnotationFixes, parseFixes),
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
			return fmt.Errorf("%w: it lists the live patch %s twice for the kernel %s", verify.ErrMalformed, p.Name,
				p.KernelRelease)
		}
	}
	r.LivePatches = append(r.LivePatches, p)
	return checkContent(d)
}

// checkContent refuses an entry that cannot be fetched, or that is not bounded.
func checkContent(d ocispec.Descriptor) error {
	switch err := d.Digest.Validate(); {
	case err != nil:
		return fmt.Errorf("%w: the digest %s is not valid: %v", verify.ErrMalformed, excerpt(d.Digest.String()), err)
	case d.Digest.Algorithm() != digest.SHA256:
		return fmt.Errorf("%w: the digest %s is not a sha256 digest", verify.ErrMalformed, excerpt(d.Digest.String()))
	case !verify.IsManifest(d.MediaType):
		return fmt.Errorf("%w: %s is of type %s and not a manifest", verify.ErrMalformed, d.Digest,
			excerpt(d.MediaType))
	case d.Size <= 0 || d.Size > verify.MaxManifest:
		return fmt.Errorf("%w: the manifest %s has the size %d", verify.ErrMalformed, d.Digest, d.Size)
	}
	return nil
}

func parseRootDigest(text string) (fsverity.Digest, error) {
	d, err := fsverity.Parse(text)
	if err == nil && d.String() != text || d == (fsverity.Digest{}) {
		return fsverity.Digest{}, errors.New("it is not an fs-verity digest in lower-case hex")
	}
	return d, err
}

// Sealed reports whether the release records the digest of the root.
func (i Image) Sealed() bool { return i.RootDigest != (fsverity.Digest{}) }

// samePlatform compares the parts of platforms by which images are selected.
func samePlatform(a, b ocispec.Platform) bool {
	return a.OS == b.OS && a.Architecture == b.Architecture && a.Variant == b.Variant
}

// Audience returns the platform and the machine class that an image is for, as text for people.
func (i Image) Audience() string {
	text := arch.Platform(*i.Descriptor.Platform)
	if i.Compatible != "" {
		text += " of the machine class " + i.Compatible
	}
	return text
}
