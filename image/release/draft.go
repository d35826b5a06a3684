package release

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/exactjson"
)

// Draft is a release that is not signed yet. It is always well-formed: New and Add refuse what Read would refuse.
type Draft struct{ index ocispec.Index }

// New begins a release.
func New(h Header) (*Draft, error) {
	a := map[string]string{
		AnnotationVersion:  h.Version,
		AnnotationSequence: strconv.FormatInt(h.Sequence, 10),
		AnnotationExpires:  h.Expires.UTC().Format(time.RFC3339),
	}
	set(a, AnnotationStream, h.Stream)
	set(a, AnnotationMinVersion, h.MinVersion)
	set(a, AnnotationNotes, h.Notes)
	if h.Rollout != nil {
		text, err := json.Marshal(h.Rollout)
		if err != nil {
			return nil, fmt.Errorf("cannot write the rollout: %w", err)
		}
		a[AnnotationRollout] = string(text)
	}
	return checked(ocispec.Index{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageIndex,
		ArtifactType: ArtifactType,
		Manifests:    []ocispec.Descriptor{},
		Annotations:  a,
	})
}

// Open continues a release that was begun before. Annotations and entries that this version does not know are kept.
func Open(content []byte) (*Draft, error) {
	var index ocispec.Index
	if err := exactjson.Unmarshal(content, &index); err != nil {
		return nil, fmt.Errorf("%w release: cannot read it: %v", verify.ErrMalformed, err)
	}
	return checked(index)
}

// Add adds an entry, such as one made by Entry. After an error the draft is unchanged.
func (d *Draft) Add(entry ocispec.Descriptor) error {
	grown := d.index
	grown.Manifests = append(grown.Manifests[:len(grown.Manifests):len(grown.Manifests)], entry)
	next, err := checked(grown)
	if err == nil {
		*d = *next
	}
	return err
}

// Bytes returns the index as JSON.
func (d *Draft) Bytes() ([]byte, error) { return json.Marshal(d.index) }

func checked(index ocispec.Index) (*Draft, error) {
	d := &Draft{index}
	text, err := d.Bytes()
	if err != nil {
		return nil, err
	}
	if len(text) > verify.MaxManifest {
		return nil, fmt.Errorf("%w release: it has %d bytes, more than %d", verify.ErrMalformed, len(text),
			verify.MaxManifest)
	}
	_, err = Read(text)
	return d, err
}

// Entry returns the descriptor with which a release lists the image.
func (i Image) Entry() ocispec.Descriptor {
	d := i.Descriptor
	d.Annotations = annotated(d.Annotations)
	if i.Sealed() {
		d.Annotations[AnnotationRootDigest] = i.RootDigest.String()
	}
	set(d.Annotations, AnnotationKernelRelease, i.KernelRelease)
	set(d.Annotations, AnnotationKernelVersion, i.KernelVersion)
	set(d.Annotations, AnnotationCompatible, i.Compatible)
	if i.SystemdMin != 0 {
		d.Annotations[AnnotationSystemdMin] = strconv.Itoa(i.SystemdMin)
	}
	set(d.Annotations, AnnotationFixes, strings.Join(i.Fixes, ","))
	return d
}

// Entry returns the descriptor with which a release lists the live patch.
func (p LivePatch) Entry() ocispec.Descriptor {
	d := p.Descriptor
	d.ArtifactType = LivePatchType
	d.Annotations = annotated(d.Annotations)
	d.Annotations[AnnotationLivePatchName] = p.Name
	d.Annotations[AnnotationKernelRelease] = p.KernelRelease
	d.Annotations[AnnotationKernelVersion] = p.KernelVersion
	d.Annotations[AnnotationKernelBuildID] = p.KernelBuildID
	set(d.Annotations, AnnotationFixes, strings.Join(p.Fixes, ","))
	return d
}

// annotated copies the annotations that a builder made, without those of a layout and of updatectl.
func annotated(from map[string]string) map[string]string {
	a := maps.Clone(from)
	maps.DeleteFunc(a, func(name, _ string) bool {
		return name == ocispec.AnnotationRefName || strings.HasPrefix(name, prefix)
	})
	if a == nil {
		a = map[string]string{}
	}
	return a
}

func set(a map[string]string, name, value string) {
	if value != "" {
		a[name] = value
	}
}
