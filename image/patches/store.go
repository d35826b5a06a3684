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
)

var (
	// ErrNotStored is a live patch that is not on the disk.
	ErrNotStored = errors.New("no such live patch is stored")
	// ErrSpoilt is one that the disk has other bytes of; it is a verify.ErrDigest, too.
	ErrSpoilt = fmt.Errorf("%w: what is stored was changed", verify.ErrDigest)
)

const (
	// evidenceType is the media type of the evidence of a release.
	evidenceType = "application/vnd.updatectl.evidence.v1+json"
	// annotationEvidence names the evidence of the release that an entry of the index was taken from.
	annotationEvidence = "dev.updatectl.evidence"
	// annotationNote has the module's own build id, as its section in hexadecimal digits. An older agent wrote none.
	annotationNote = "dev.updatectl.livepatch.note"
)

// Store is the live patches on the disk.
type Store struct{ dir string }

// At is the store at dir. The directory is made when there is something to keep.
func At(dir string) Store { return Store{dir} }

// Stored is a live patch on the disk, as the index there has it: nobody has vouched for it yet.
type Stored struct {
	release.LivePatch
	// Evidence is the digest of the evidence of its release.
	Evidence digest.Digest
	// Note is the section with the module's own build id, nil when that is not known.
	Note []byte
}

// is tells whether a release lists this very live patch for this very kernel.
func (s Stored) is(p release.LivePatch) bool {
	return p.Descriptor.Digest == s.Descriptor.Digest && p.Name == s.Name &&
		p.KernelRelease == s.KernelRelease && p.KernelVersion == s.KernelVersion && p.KernelBuildID == s.KernelBuildID
}

// open opens the layout, and with create makes one that is missing.
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
	if err := errors.Join(os.RemoveAll(fresh), dir.Create(fresh), os.Chmod(fresh, 0o700), durable.SyncFS(fresh)); err != nil {
		return err
	}
	return os.Rename(fresh, s.dir)
}

// List returns what the index has: what the last Keep brought comes last, in the order of its release. Entries that
// cannot be read are passed over: a newer agent may have made them.
func (s Store) List(ctx context.Context) ([]Stored, error) {
	index, err := s.index(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot list the stored live patches: %w", err)
	}
	all := []Stored{}
	for _, d := range index.Manifests {
		if stored, ok := read(d); ok {
			all = append(all, stored)
		}
	}
	return all, nil
}

// index reads the index; an empty one when there is no store.
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

// read reads an entry of the index, if it is a live patch.
func read(d ocispec.Descriptor) (Stored, bool) {
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

// Keep brings live patches of a verified release onto the disk, with the release's evidence. What is there already is
// not fetched again; its evidence becomes that of this release. The evidence is kept also when there is nothing to
// fetch: it says what could be fixed. Nothing is listed before it is whole, checked and on the disk.
func (s Store) Keep(ctx context.Context, src *source.Source, v *verify.Verified, patches []release.LivePatch) (err error) {
	e, err := s.open(true)
	if err != nil {
		return fmt.Errorf("cannot open the store of live patches: %w", store.Full(err))
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	k := keeper{engine: e, source: src, release: v}
	if err := k.putEvidence(ctx); err != nil {
		return fmt.Errorf("cannot keep the evidence of a release: %w", store.Full(err))
	}
	for _, p := range patches {
		if err := k.fetch(ctx, p); err != nil {
			return fmt.Errorf("cannot fetch the live patch %s: %w", p.Name, store.Full(err))
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
	return s.list(ctx, e, index)
}

// list replaces the index, with everything it lists on the disk before.
func (s Store) list(ctx context.Context, e cas.Engine, index ocispec.Index) error {
	index.Versioned = specs.Versioned{SchemaVersion: 2}
	err := durable.SyncFS(s.dir)
	if err == nil {
		err = e.PutIndex(ctx, index)
	}
	if err == nil {
		err = durable.SyncFS(s.dir)
	}
	if err != nil {
		return fmt.Errorf("cannot write the index of live patches: %w", store.Full(err))
	}
	return nil
}

// keeper brings parts of one release onto the disk.
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
	k.entries = append(k.entries, ocispec.Descriptor{MediaType: evidenceType, Digest: d, Size: size, Annotations: map[string]string{
		release.AnnotationSequence: strconv.FormatInt(r.Sequence, 10), release.AnnotationVersion: r.Version,
	}})
	return nil
}

// fetch brings one live patch onto the disk: its manifest, which the release lists, and the module, which that lists.
// The module is read before it is kept, so that what is no live patch is refused here.
func (k *keeper) fetch(ctx context.Context, p release.LivePatch) error {
	var fresh [][]byte // what is not there yet, or not whole
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

// get reads a blob that is on the disk, whole and checked.
func (k *keeper) get(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	return get(ctx, k.engine, d)
}

func (k *keeper) download(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	body, err := k.source.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body) // it ends at the size that modulePart bounded
}

// get reads a blob whole. Other bytes than those of the digest are an ErrSpoilt.
func get(ctx context.Context, e casext.Engine, d ocispec.Descriptor) ([]byte, error) {
	if d.Size > max(MaxModule, verify.MaxEvidence) {
		return nil, fmt.Errorf("%w: %s has %d bytes", verify.ErrMalformed, d.Digest, d.Size)
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
		return nil, fmt.Errorf("%w: the blob %s", ErrSpoilt, d.Digest) // the library's words say how it read, and no more
	case err != nil:
		return nil, fmt.Errorf("%w: the blob %s: %w", ErrSpoilt, d.Digest, err)
	}
	return content, nil
}

// modulePart finds the only layer of a live patch's manifest.
func modulePart(v *verify.Verified) (ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(v.Bytes(), &m); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: manifest %s: %v", verify.ErrMalformed, v.Digest(), err)
	}
	if len(m.Layers) != 1 || m.Layers[0].MediaType != PartType {
		return ocispec.Descriptor{}, fmt.Errorf("%w: the manifest %s has %d layers, and not a kernel module alone", ErrModule, v.Digest(), len(m.Layers))
	}
	d := m.Layers[0]
	if d.Digest.Validate() != nil || d.Digest.Algorithm() != digest.SHA256 || d.Size < 0 || d.Size > MaxModule {
		return ocispec.Descriptor{}, fmt.Errorf("%w: the module of %s cannot be fetched: %.140q, %d bytes", verify.ErrMalformed, v.Digest(), d.Digest, d.Size)
	}
	d.Data = nil
	return d, nil
}

// Loaded is a live patch from the disk that the policy of today vouches for.
type Loaded struct {
	Module
	Content  []byte
	Vouchers []verify.Voucher
}

// Load reads a stored live patch and has it verified again, offline, from the evidence of its release down. What the
// index says is taken for nothing but where to look. The error is a verify.ErrNotTrusted, an ErrModule, or
// ErrNotStored.
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
		return l, fmt.Errorf("%w: the release %s does not list it, or not for this kernel", verify.ErrUnsigned, r.Version)
	}
	p := r.LivePatches[i]
	e, err := s.open(false)
	if err != nil {
		return l, err
	}
	manifest, err := get(ctx, e, p.Descriptor)
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
	if l.Content, err = get(ctx, e, part); err != nil {
		return l, err
	}
	if l.Module, err = Parse(l.Content); err != nil {
		return l, err
	}
	l.Vouchers = v.Vouchers()
	return l, l.Check(p)
}

// Release judges the stored evidence of a release by the policy of today.
func (s Store) Release(ctx context.Context, evidence digest.Digest, policy verify.Policy) (*verify.Verified, *release.Release, error) {
	index, err := s.index(ctx)
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Digest == evidence && d.MediaType == evidenceType })
	if i < 0 {
		return nil, nil, fmt.Errorf("%w: no evidence was kept", verify.ErrUnsigned)
	}
	e, err := s.open(false)
	if err != nil {
		return nil, nil, err
	}
	text, err := get(ctx, e, index.Manifests[i])
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

// Releases lists the evidence that is kept, that of the last Keep first.
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

// GC removes the live patches that are not needed, and returns their names. The evidence of the last Keep stays, and
// that of what is needed.
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
		stored, ok := read(d)
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
		if err := s.list(ctx, e, index); err != nil {
			return nil, err
		}
	}
	if err := sweep(ctx, e, index); err != nil { // also what an interrupted Keep left
		return removed, fmt.Errorf("cannot remove live patches: %w", err)
	}
	return removed, nil
}

// sweep removes the blobs that the index does not lead to. The engine's own collector does the same, and writes to the
// log about every media type that it does not know.
func sweep(ctx context.Context, e casext.Engine, index ocispec.Index) error {
	used := map[digest.Digest]bool{}
	for _, d := range index.Manifests {
		used[d.Digest] = true
		if d.MediaType == evidenceType {
			continue
		}
		var m ocispec.Manifest
		if text, err := get(ctx, e, d); err != nil || json.Unmarshal(text, &m) != nil {
			continue // damaged: Keep fetches all of it again
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

// Dir is where the store is, below the agent's own directory.
func Dir(state string) string { return filepath.Join(state, "oci") }
