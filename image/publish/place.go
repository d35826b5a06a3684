package publish

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/errdef"
	distribution "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/layout"
	"github.com/updatectl/updatectl/image/registry"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/verify"
)

// userAgent is what registries see in their logs.
const userAgent = "releasectl"

// Options say how to reach a registry.
type Options struct {
	PlainHTTP bool // talk to the registry without TLS

	stall time.Duration // how long a body may make no progress; 0 means one minute
}

// place is where images can be written: a repository in a registry, or an OCI layout.
type place struct {
	name   string // the reference as it was given
	target oras.GraphTarget
	tag    string // a tag or a digest, or "" for the only image in a layout
	repo   string // host and repository, "" for a layout
	source *source.Source
}

// SplitLayout splits a reference to a layout, with or without its prefix, into the directory and a tag or digest,
// which may be "".
func SplitLayout(reference string) (dir, name string) {
	dir, name, _ = layout.Split(strings.TrimPrefix(reference, layout.Prefix))
	return dir, name
}

// openPlace opens a reference for writing. A layout that does not exist is made.
func openPlace(reference string, o Options) (*place, error) {
	src, err := openSource(reference, o)
	if err != nil {
		return nil, err
	}
	p := &place{name: reference, source: src}
	if strings.HasPrefix(reference, layout.Prefix) {
		var dir string
		dir, p.tag = SplitLayout(reference)
		if err = checkLayout(dir); err == nil {
			p.target, err = oci.New(dir)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot open the layout %s: %w", dir, err)
		}
		return p, nil
	}
	ref, err := distribution.ParseReference(reference)
	if err != nil { // openSource accepted it, so it is to a tar
		return nil, fmt.Errorf("%w %q: unpack the archive: only a layout directory can be written to and copied from",
			failure.ErrReference, reference)
	}
	p.tag, p.repo = ref.Reference, ref.Registry+"/"+ref.Repository
	p.target, err = repository(ref, o)
	return p, err
}

// checkLayout refuses a layout with a FIFO or a device in the place of a file: the library that writes layouts would
// open it, and wait. A directory that does not exist yet is fine.
func checkLayout(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, ocispec.ImageBlobsDir, "*", "*"))
	if err != nil {
		return err
	}
	for _, file := range append(files, filepath.Join(dir, ocispec.ImageLayoutFile),
		filepath.Join(dir, ocispec.ImageIndexFile)) {
		st, err := os.Stat(file)
		if err == nil && !st.Mode().IsRegular() {
			return &fs.PathError{Op: "open", Path: file, Err: durable.ErrNotRegular}
		}
	}
	return nil
}

// openSource opens a reference for reading.
func openSource(reference string, o Options) (*source.Source, error) {
	so := source.Options{UserAgent: userAgent}
	if ref, err := distribution.ParseReference(reference); err == nil {
		if isLayout(ref, reference) {
			return nil, fmt.Errorf("%w %q: did you mean %s?", failure.ErrReference, reference, layout.Prefix+
				reference)
		}
		if o.PlainHTTP {
			so.PlainHTTP = []string{ref.Registry}
		}
	}
	return source.Open(reference, so)
}

// isLayout reports whether a reference that could be one to a registry is the path of a layout. As in docker, a
// registry has a dot or a port in its name, or is localhost.
func isLayout(ref distribution.Reference, reference string) bool {
	if ref.Registry == "localhost" || strings.ContainsAny(ref.Registry, ".:") {
		return false
	}
	dir, _ := SplitLayout(reference)
	_, err := os.Stat(filepath.Join(dir, ocispec.ImageLayoutFile))
	return err == nil
}

// repository returns a registry client that can write. If the registry has no referrers API, the client maintains an
// index under the fallback tag. The index that it replaces is left to the garbage collection of the registry, because
// many registries refuse to delete.
func repository(ref distribution.Reference, o Options) (*remote.Repository, error) {
	client, err := registry.Client(ref, registry.Options{
		PlainHTTP: o.PlainHTTP, UserAgent: userAgent, Stall: o.stall, Writes: true,
	})
	if err != nil {
		return nil, err
	}
	return &remote.Repository{
		Client:           client,
		Reference:        ref,
		PlainHTTP:        o.PlainHTTP,
		SkipReferrersGC:  true,
		MaxMetadataBytes: verify.MaxManifest,
	}, nil
}

// bare returns a descriptor with only what a subject or a tag needs.
func bare(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// explain says what could not be done at this place, with an error of package failure. Which step of a copy failed is
// left out: it means nothing to the reader.
func (p *place) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	var step *oras.CopyError
	if errors.As(err, &step) {
		err = step.Err
	}
	switch {
	case p.repo != "":
		err = registry.Explain(err)
	case errors.Is(err, errdef.ErrNotFound):
		err = fmt.Errorf("%w: %s", failure.ErrNotFound,
			strings.TrimSuffix(err.Error(), ": "+errdef.ErrNotFound.Error()))
	default:
		err = failure.OfFile(err)
	}
	return fmt.Errorf("cannot %s %s: %w", doing, p.name, err)
}
