package patches

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/umoci/oci/cas"
	"github.com/opencontainers/umoci/oci/cas/dir"
	"github.com/opencontainers/umoci/oci/casext"
	"github.com/opencontainers/umoci/pkg/hardening"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/exactjson"
)

var (
	// ErrNotStored means that the live patch is not on the disk.
	ErrNotStored = errors.New("no such live patch is stored")
	// ErrSpoilt means that the disk has other bytes than those that were stored. It is a verify.ErrDigest.
	ErrSpoilt = fmt.Errorf("%w: what was stored has changed", verify.ErrDigest)
)

const (
	// evidenceType is the media type of the evidence of a release.
	evidenceType = "application/vnd.updatectl.evidence.v1+json"
	// annotationEvidence has the digest of the evidence of the release that an entry comes from.
	annotationEvidence = "dev.updatectl.evidence"
	// annotationNote has the section with the build id of the module, in hex. Older agents did not write it.
	annotationNote = "dev.updatectl.livepatch.note"
)

// Store keeps live patches on the disk.
type Store struct{ dir string }

// At returns the store at dir, which is made when there is something to keep.
func At(dir string) Store { return Store{dir} }

// Stored is a live patch on the disk as the index lists it, unverified.
type Stored struct {
	release.LivePatch
	// Evidence is the digest of the evidence of its release.
	Evidence digest.Digest
	// Note is the section with the build id of the module, nil if unknown.
	Note []byte
}

// is reports whether p is this live patch, for the same kernel.
func (s Stored) is(p release.LivePatch) bool {
	return p.Descriptor.Digest == s.Descriptor.Digest && p.Name == s.Name &&
		p.KernelRelease == s.KernelRelease && p.KernelVersion == s.KernelVersion && p.KernelBuildID == s.KernelBuildID
}

// open opens the layout, and makes it if it is missing and create is set.
func (s Store) open(create bool) (casext.Engine, error) {
	_, err := os.Lstat(s.dir)
	if errors.Is(err, fs.ErrNotExist) && create {
		err = s.create()
	}
	if err != nil {
		return casext.Engine{}, err
	}
	e, err := dir.Open(s.dir)
	if err != nil {
		return casext.Engine{}, err
	}
	return casext.NewEngine(e), nil
}

// create makes an empty layout. It gets its name when it is complete and on the disk: the library syncs files, but not
// their names.
func (s Store) create() error {
	fresh := s.dir + ".new"
	if err := errors.Join(os.RemoveAll(fresh), dir.Create(fresh), os.Chmod(fresh, 0o700),
		durable.SyncFS(fresh)); err != nil {
		return err
	}
	return os.Rename(fresh, s.dir)
}

// List returns the live patches in the index, those of the latest Keep last, in the order of their release. Entries
// that cannot be read are skipped: a newer agent may have written them.
func (s Store) List(ctx context.Context) ([]Stored, error) {
	index, err := s.index(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot list the stored live patches: %w", err)
	}
	all := []Stored{}
	for _, d := range index.Manifests {
		if stored, ok := readEntry(d); ok {
			all = append(all, stored)
		}
	}
	return all, nil
}

// index reads the index. It is empty if there is no store.
func (s Store) index(ctx context.Context) (ocispec.Index, error) {
	e, err := s.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return ocispec.Index{}, nil
	}
	if err != nil {
		return ocispec.Index{}, err
	}
	return e.GetIndex(ctx)
}

// readEntry reads an entry of the index. It returns false if that is no live patch.
func readEntry(d ocispec.Descriptor) (Stored, bool) {
	if d.ArtifactType != release.LivePatchType {
		return Stored{}, false
	}
	p, err := release.ReadLivePatch(d)
	s := Stored{LivePatch: p, Evidence: digest.Digest(d.Annotations[annotationEvidence])}
	if note, err := hex.DecodeString(d.Annotations[annotationNote]); err == nil && len(note) > 0 {
		s.Note = note
	}
	return s, err == nil
}

// Keep stores live patches of a verified release, with the evidence of the release. Live patches that are stored
// already are not fetched again; this release becomes their evidence. The evidence is stored even if there is nothing
// to fetch, because it says what the release fixes. Nothing is listed before it is complete, checked and on the disk.
func (s Store) Keep(ctx context.Context, src *source.Source, v *verify.Verified,
	patches []release.LivePatch) (err error) {
	e, err := s.open(true)
	if err != nil {
		return fmt.Errorf("cannot open the store of live patches: %w", store.AsNoSpace(err))
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	k := keeper{engine: e, source: src, release: v}
	if err := k.putEvidence(ctx); err != nil {
		return fmt.Errorf("cannot store the evidence of a release: %w", store.AsNoSpace(err))
	}
	for _, p := range patches {
		if err := k.fetch(ctx, p); err != nil {
			return fmt.Errorf("cannot fetch the live patch %s: %w", p.Name, store.AsNoSpace(err))
		}
	}
	index, err := e.GetIndex(ctx)
	if err != nil {
		return fmt.Errorf("cannot read the index of live patches: %w", err)
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool {
		return slices.ContainsFunc(k.entries, func(fresh ocispec.Descriptor) bool { return fresh.Digest == d.Digest })
	})
	index.Manifests = append(index.Manifests, k.entries...)
	return s.writeIndex(ctx, e, index)
}

// writeIndex replaces the index, after everything that it lists is on the disk.
func (s Store) writeIndex(ctx context.Context, e cas.Engine, index ocispec.Index) error {
	index.Versioned = specs.Versioned{SchemaVersion: 2}
	err := durable.SyncFS(s.dir)
	if err == nil {
		err = e.PutIndex(ctx, index)
	}
	if err == nil {
		err = durable.SyncFS(s.dir)
	}
	if err != nil {
		return fmt.Errorf("cannot write the index of live patches: %w", store.AsNoSpace(err))
	}
	return nil
}

// keeper stores parts of one release.
type keeper struct {
	engine   casext.Engine
	source   *source.Source
	release  *verify.Verified
	evidence digest.Digest
	entries  []ocispec.Descriptor // for the index
}

func (k *keeper) putEvidence(ctx context.Context) error {
	text, err := k.release.Evidence().Bytes()
	if err != nil {
		return err
	}
	r, err := release.Parse(k.release)
	if err != nil {
		return err
	}
	d, size, err := k.engine.PutBlob(ctx, bytes.NewReader(text))
	if err != nil {
		return err
	}
	k.evidence = d
	k.entries = append(k.entries,
		ocispec.Descriptor{MediaType: evidenceType, Digest: d, Size: size, Annotations: map[string]string{
			release.AnnotationSequence: strconv.FormatInt(r.Sequence, 10), release.AnnotationVersion: r.Version,
		}})
	return nil
}

// fetch stores a live patch: its manifest, which the release lists, and the module, which the manifest lists. The
// module is parsed first, so that a file that is no live patch is refused here.
func (k *keeper) fetch(ctx context.Context, p release.LivePatch) error {
	var fresh [][]byte // blobs that are missing or damaged
	manifest, err := k.get(ctx, p.Descriptor)
	if err != nil {
		if manifest, err = k.source.Manifest(ctx, p.Descriptor); err != nil {
			return err
		}
		fresh = append(fresh, manifest, ocispec.DescriptorEmptyJSON.Data)
	}
	v, err := k.release.Descend(p.Descriptor, manifest)
	if err != nil {
		return err
	}
	part, err := modulePart(v)
	if err != nil {
		return err
	}
	module, err := k.get(ctx, part)
	if err != nil {
		if module, err = k.download(ctx, part); err != nil {
			return err
		}
		fresh = append(fresh, module)
	}
	m, err := Parse(module)
	if err == nil {
		err = m.Check(p)
	}
	if err != nil {
		return err
	}
	entry := p.Entry()
	entry.Annotations[annotationEvidence] = k.evidence.String()
	entry.Annotations[annotationNote] = hex.EncodeToString(m.Note)
	k.entries = append(k.entries, entry)
	for _, b := range fresh {
		if _, _, err := k.engine.PutBlob(ctx, bytes.NewReader(b)); err != nil {
			return err
		}
	}
	return nil
}

// get returns a blob from the disk, after checking it.
func (k *keeper) get(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	return getBlob(ctx, k.engine, d)
}

func (k *keeper) download(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	body, err := k.source.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body) // modulePart bounded its size
}

// getBlob returns a blob. The error is an ErrSpoilt if it does not have its digest.
func getBlob(ctx context.Context, e casext.Engine, d ocispec.Descriptor) ([]byte, error) {
	if d.Size > max(MaxModule, verify.MaxEvidence) {
		return nil, fmt.Errorf("%w: the blob %s has %d bytes, too many", verify.ErrMalformed, d.Digest, d.Size)
	}
	body, err := e.GetVerifiedBlob(ctx, d)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the blob %s is missing", ErrNotStored, d.Digest)
	}
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(body)
	switch err = errors.Join(err, body.Close()); {
	case errors.Is(err, hardening.ErrDigestMismatch), errors.Is(err, hardening.ErrSizeMismatch):
		return nil, fmt.Errorf("%w: the blob %s", ErrSpoilt, d.Digest) // the library's text says nothing more
	case err != nil:
		return nil, fmt.Errorf("%w: the blob %s: %w", ErrSpoilt, d.Digest, err)
	}
	return content, nil
}

// modulePart returns the layer of a live patch's manifest, which must be its only one.
func modulePart(v *verify.Verified) (ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := exactjson.Unmarshal(v.Bytes(), &m); err != nil {
		return ocispec.Descriptor{},
			fmt.Errorf("%w: cannot read the manifest %s: %v", verify.ErrMalformed, v.Digest(), err)
	}
	if len(m.Layers) != 1 || m.Layers[0].MediaType != PartType {
		return ocispec.Descriptor{},
			fmt.Errorf("%w: the manifest %s does not have a kernel module as its only layer", ErrModule, v.Digest())
	}
	d := m.Layers[0]
	if d.Digest.Validate() != nil || d.Digest.Algorithm() != digest.SHA256 || d.Size < 0 || d.Size > MaxModule {
		return ocispec.Descriptor{},
			fmt.Errorf("%w: the manifest %s lists a module that cannot be fetched: %.140q, %d bytes",
				verify.ErrMalformed, v.Digest(), d.Digest, d.Size)
	}
	d.Data = nil
	return d, nil
}

// Loaded is a live patch from the disk that was verified by the current policy.
type Loaded struct {
	Module
	Content  []byte
	Vouchers []verify.Voucher
}

// Load reads a stored live patch and verifies it again, offline, starting from the evidence of its release. The index
// is not trusted: it only says where to look. The error is a verify.ErrNotTrusted, an ErrModule or an ErrNotStored.
func (s Store) Load(ctx context.Context, stored Stored, policy verify.Policy) (l Loaded, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot use the stored live patch %s: %w", stored.Name, err)
		}
	}()
	v, r, err := s.Release(ctx, stored.Evidence, policy)
	if err != nil {
		return l, err
	}
	i := slices.IndexFunc(r.LivePatches, stored.is)
	if i < 0 {
		return l, fmt.Errorf("%w: the release %s does not list it, or not for this kernel", verify.ErrUnsigned,
			r.Version)
	}
	p := r.LivePatches[i]
	e, err := s.open(false)
	if err != nil {
		return l, err
	}
	manifest, err := getBlob(ctx, e, p.Descriptor)
	if err != nil {
		return l, err
	}
	if v, err = v.Descend(p.Descriptor, manifest); err != nil {
		return l, err
	}
	part, err := modulePart(v)
	if err != nil {
		return l, err
	}
	if l.Content, err = getBlob(ctx, e, part); err != nil {
		return l, err
	}
	if l.Module, err = Parse(l.Content); err != nil {
		return l, err
	}
	l.Vouchers = v.Vouchers()
	return l, l.Check(p)
}

// Release verifies the stored evidence of a release by the current policy. The error is a verify.ErrNotTrusted.
func (s Store) Release(ctx context.Context, evidence digest.Digest, policy verify.Policy) (*verify.Verified,
	*release.Release, error) {
	index, err := s.index(ctx)
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(index.Manifests,
		func(d ocispec.Descriptor) bool { return d.Digest == evidence && d.MediaType == evidenceType })
	if i < 0 {
		return nil, nil, fmt.Errorf("%w: no evidence was kept", verify.ErrUnsigned)
	}
	e, err := s.open(false)
	if err != nil {
		return nil, nil, err
	}
	text, err := getBlob(ctx, e, index.Manifests[i])
	if err != nil {
		return nil, nil, err
	}
	kept, err := verify.ParseEvidence(text)
	if err != nil {
		return nil, nil, err
	}
	v, err := policy.Again(kept)
	if err != nil {
		return nil, nil, err
	}
	r, err := release.Parse(v)
	return v, r, err
}

// Releases returns the digests of the stored evidence, that of the latest Keep first.
func (s Store) Releases(ctx context.Context) ([]digest.Digest, error) {
	index, err := s.index(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot list the releases of live patches: %w", err)
	}
	var all []digest.Digest
	for _, d := range slices.Backward(index.Manifests) {
		if d.MediaType == evidenceType {
			all = append(all, d.Digest)
		}
	}
	return all, nil
}

// GC removes the live patches that are not needed, and returns their names. The evidence of the latest Keep stays, and
// that of the needed live patches.
func (s Store) GC(ctx context.Context, needed func(Stored) bool) (removed []string, err error) {
	e, err := s.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the store of live patches: %w", err)
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	index, err := e.GetIndex(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot read the index of live patches: %w", err)
	}
	latest, err := s.Releases(ctx)
	if err != nil {
		return nil, err
	}
	evidence := map[digest.Digest]bool{}
	if len(latest) > 0 {
		evidence[latest[0]] = true
	}
	listed := len(index.Manifests)
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool {
		stored, ok := readEntry(d)
		switch {
		case ok && !needed(stored):
			removed = append(removed, stored.Name)
			return true
		case ok:
			evidence[stored.Evidence] = true
		}
		return false
	})
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool {
		return d.MediaType == evidenceType && !evidence[d.Digest]
	})
	if len(index.Manifests) != listed {
		if err := s.writeIndex(ctx, e, index); err != nil {
			return nil, err
		}
	}
	if err := sweep(ctx, e, index); err != nil { // including what an interrupted Keep left
		return removed, fmt.Errorf("cannot remove live patches: %w", err)
	}
	return removed, nil
}

// sweep removes the blobs that the index does not lead to. The library's own garbage collector does the same, but logs
// every media type that it does not know.
func sweep(ctx context.Context, e casext.Engine, index ocispec.Index) error {
	used := map[digest.Digest]bool{}
	for _, d := range index.Manifests {
		used[d.Digest] = true
		if d.MediaType == evidenceType {
			continue
		}
		var m ocispec.Manifest
		if text, err := getBlob(ctx, e, d); err != nil || json.Unmarshal(text, &m) != nil {
			continue // damaged: Keep fetches it again
		}
		used[m.Config.Digest] = true
		for _, l := range m.Layers {
			used[l.Digest] = true
		}
	}
	blobs, err := e.ListBlobs(ctx)
	if err != nil {
		return err
	}
	for _, d := range blobs {
		if !used[d] {
			err = errors.Join(err, e.DeleteBlob(ctx, d))
		}
	}
	return errors.Join(err, e.Clean(ctx))
}

// Dir returns the directory of the store below the state directory of the agent.
func Dir(state string) string { return filepath.Join(state, "oci") }
