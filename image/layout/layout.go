package layout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/errdef"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/verify"
)

// Prefix starts a reference to an OCI layout directory, ArchivePrefix one to a tar of it, as in skopeo and podman.
const (
	Prefix        = "oci:"
	ArchivePrefix = "oci-archive:"
)

const (
	// maxEntries bounds the entries of a layout that are searched for signatures.
	maxEntries = 4096
	// maxUnlisted bounds blobs that are read although the index does not list them, in bytes. A manifest with one
	// signature has less than 1 KiB.
	maxUnlisted = 64 << 10
	// cosignKind is the annotation with which `cosign save` marks signatures.
	cosignKind = "kind"
	cosignSigs = "dev.cosignproject.cosign/sigs"
)

// ValidTag matches the tags that the distribution specification allows.
var ValidTag = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// Layout is an OCI layout: a directory, or a tar of one. The index is read each time, because the directory may change
// while the agent runs. Only the index and the requested content are read, so another image that is broken does no
// harm.
type Layout struct {
	dir    string // the directory or the tar
	tag    string
	digest digest.Digest
	files  fs.FS
	blobs  content.ReadOnlyStorage
}

// Split splits a reference to a layout, without its prefix, into the path and what follows it: a tag after ":",
// a digest after "@", or nothing.
func Split(ref string) (path, name, separator string) {
	if path, name, ok := strings.Cut(ref, "@"); ok {
		return path, name, "@"
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i], ref[i+1:], ":"
	}
	return ref, "", ""
}

// New reads DIR, DIR:TAG or DIR@sha256:… after a prefix, which says whether DIR is a directory or a tar.
func New(prefix, ref string) (*Layout, error) {
	dir, name, separator := Split(ref)
	l := &Layout{dir: dir}
	switch separator {
	case "@":
		l.digest = digest.Digest(name)
		if err := l.digest.Validate(); err != nil {
			return nil, fmt.Errorf("%w %q: %v", failure.ErrReference, prefix+ref, err)
		}
	case ":":
		l.tag = name
		if !ValidTag.MatchString(l.tag) {
			return nil, fmt.Errorf("%w %q: %q is not a tag", failure.ErrReference, prefix+ref, l.tag)
		}
	}
	if l.dir == "" {
		return nil, fmt.Errorf("%w %q: it names no file or directory", failure.ErrReference, prefix+ref)
	}
	l.files = directory(l.dir)
	if prefix == ArchivePrefix {
		l.files = &archive{path: l.dir}
	}
	l.blobs = oci.NewStorageFromFS(l.files)
	return l, nil
}

// directory presents a directory whose files may be anything: it is on a medium, or somebody else writes to it. No link
// leads out of it.
type directory string

// Open opens a regular file. Anything else is a durable.ErrNotRegular.
func (d directory) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	root, err := os.OpenRoot(string(d))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return durable.OpenRegularIn(root, name)
}

// ReadDir lists the files in a directory.
func (d directory) ReadDir(name string) ([]fs.DirEntry, error) {
	root, err := os.OpenRoot(string(d))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return fs.ReadDir(root.FS(), name)
}

// index reads index.json.
func (l *Layout) index() ([]ocispec.Descriptor, error) {
	name := filepath.Join(l.dir, ocispec.ImageIndexFile)
	f, err := l.files.Open(ocispec.ImageIndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(l.dir); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %s does not exist", failure.ErrNoLayout, l.dir)
		}
		return nil, fmt.Errorf("%w: %s has no %s", failure.ErrNoLayout, l.dir, ocispec.ImageIndexFile)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: cannot read %s: %w", failure.ErrUnreachable, name, failure.Pathless(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, verify.MaxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", failure.ErrUnreachable, err)
	}
	if len(data) > verify.MaxManifest {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", failure.ErrUnreachable, name, verify.MaxManifest)
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("%w: cannot read %s: %v", failure.ErrUnreachable, name, err)
	}
	if len(index.Manifests) > maxEntries {
		return nil, fmt.Errorf("%w: %s lists more than %d images", failure.ErrUnreachable, name, maxEntries)
	}
	return index.Manifests, nil
}

// Resolve returns the image that a tag stands for or, if it is empty, the one that the reference does.
func (l *Layout) Resolve(ctx context.Context, tag string) (ocispec.Descriptor, error) {
	entries, err := l.index()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	switch {
	case tag != "":
		return findTag(entries, tag)
	case l.tag != "":
		return findTag(entries, l.tag)
	case l.digest != "":
		return l.byDigest(ctx, entries)
	}
	return onlyImage(entries)
}

// findTag returns the entry that has a tag.
func findTag(entries []ocispec.Descriptor, tag string) (ocispec.Descriptor, error) {
	for _, d := range entries {
		if d.Annotations[ocispec.AnnotationRefName] == tag {
			return d, nil
		}
	}
	return ocispec.Descriptor{}, fmt.Errorf("%w: the layout has no tag %q", failure.ErrNoTag, tag)
}

// onlyImage returns the image of a layout that has only one.
func onlyImage(entries []ocispec.Descriptor) (ocispec.Descriptor, error) {
	var images []ocispec.Descriptor
	for _, d := range entries {
		if !isAttachment(d) {
			images = append(images, d)
		}
	}
	switch len(images) {
	case 1:
		return images[0], nil
	case 0:
		return ocispec.Descriptor{}, fmt.Errorf("%w: the layout is empty", failure.ErrNotFound)
	}
	return ocispec.Descriptor{},
		fmt.Errorf("%w: the layout has %d images: name one by its tag", failure.ErrNotFound, len(images))
}

// isAttachment reports whether an entry is listed like a signature or another attachment.
func isAttachment(d ocispec.Descriptor) bool {
	return d.ArtifactType != "" && d.MediaType == ocispec.MediaTypeImageManifest ||
		strings.HasPrefix(d.Annotations[ocispec.AnnotationRefName], "sha256-") ||
		d.Annotations[cosignKind] == cosignSigs
}

// byDigest returns the descriptor of content by its digest, whether the index lists it or not.
func (l *Layout) byDigest(ctx context.Context, entries []ocispec.Descriptor) (ocispec.Descriptor, error) {
	for _, d := range entries {
		if d.Digest == l.digest {
			return d, nil
		}
	}
	st, err := fs.Stat(l.files, path.Join(ocispec.ImageBlobsDir, l.digest.Algorithm().String(), l.digest.Encoded()))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %w", failure.ErrNotFound, err)
	}
	d := ocispec.Descriptor{Digest: l.digest, Size: st.Size()}
	var self struct {
		MediaType string `json:"mediaType"`
	}
	if err := l.decode(ctx, d, &self); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %s is not a manifest: %w", failure.ErrNotFound, l.digest, err)
	}
	d.MediaType = self.MediaType
	return d, nil
}

// Open opens content. It always starts at its beginning, at the offset 0.
func (l *Layout) Open(ctx context.Context, d ocispec.Descriptor, _ bool, _ int64) (io.ReadCloser, int64, error) {
	body, err := l.blobs.Fetch(ctx, d)
	if errors.Is(err, errdef.ErrNotFound) {
		return nil, 0, fmt.Errorf("%w: the layout does not have %s", failure.ErrNotFound, d.Digest)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", failure.ErrUnreachable, err)
	}
	return body, 0, nil
}

// Referrers lists the manifests that have that subject, among those in the index and the small blobs that it does not
// list. What is missing or unreadable is skipped.
func (l *Layout) Referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	entries, err := l.index()
	if err != nil {
		return nil, err
	}
	unlisted, err := l.unlisted(entries)
	if err != nil {
		return nil, err
	}
	entries = append(entries, unlisted...)
	var found []ocispec.Descriptor
	for _, e := range entries {
		if e.MediaType != ocispec.MediaTypeImageManifest || e.Size > verify.MaxManifest {
			continue
		}
		var m struct {
			Subject *ocispec.Descriptor `json:"subject"`
		}
		err := l.decode(ctx, e, &m)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("%w: %w", failure.ErrUnreachable, err)
		}
		if err == nil && m.Subject != nil && m.Subject.Digest == d || e.Annotations[cosignKind] == cosignSigs {
			found = append(found, e)
		}
	}
	return found, nil
}

// unlisted returns descriptors of the small blobs that the index does not list, as if they were manifests. `cosign
// save` stores a bundle like that: it refers to its image, but the index does not list it.
func (l *Layout) unlisted(listed []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	known := map[digest.Digest]bool{}
	for _, d := range listed {
		known[d.Digest] = true
	}
	files, err := fs.ReadDir(l.files, path.Join(ocispec.ImageBlobsDir, digest.SHA256.String()))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", failure.ErrUnreachable, err)
	}
	var found []ocispec.Descriptor
	for _, f := range files {
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest,
			Digest: digest.NewDigestFromEncoded(digest.SHA256, f.Name())}
		info, err := f.Info()
		if err != nil || known[d.Digest] || !info.Mode().IsRegular() || info.Size() > maxUnlisted ||
			len(found) == maxEntries {
			continue
		}
		d.Size = info.Size()
		found = append(found, d)
	}
	return found, nil
}

// decode reads a small JSON blob into v.
func (l *Layout) decode(ctx context.Context, d ocispec.Descriptor, v any) error {
	if d.Size > verify.MaxManifest {
		return fmt.Errorf("it has %d bytes", d.Size)
	}
	if err := d.Digest.Validate(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // reading a file does not ask
		return err
	}
	body, err := l.blobs.Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(io.LimitReader(body, d.Size)).Decode(v)
}
