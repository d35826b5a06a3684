package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/updatectl/updatectl/image/composefs"
	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/image/inventory"
	"github.com/updatectl/updatectl/image/layer"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/verify"
)

// The phases of staging, in order.
const (
	PhaseFetch  = "fetch"  // layers are fetched and unpacked
	PhaseCommit = "commit" // the root is written and made durable
	PhaseDone   = "done"
)

// Event says how far staging has got. Done and Total are bytes of all published layers together.
type Event struct {
	Phase  string
	Layer  int // the one being fetched, counted from 1
	Layers int
	Done   int64
	Total  int64
}

// progressStep is the number of bytes between two reports of progress.
const progressStep = 1 << 20

// Stage makes the image a root in the store and returns it. If that root exists already, only its evidence is renewed.
// Nothing becomes visible in the store before everything is checked and on disk, however Stage ends. progress may be
// nil. The error is an ErrNoSpace, an ErrNotBootable, a verify.ErrNotTrusted or a failure.ErrSource.
func Stage(ctx context.Context, st *store.Store, src *source.Source, img *Image, reference string,
	progress func(Event)) (store.Root, error) {
	root, err := st.Root(img.ID())
	if err == nil {
		err = img.checkStaged(st, root)
	}
	if err == nil {
		return root.Renew(img.Verified, time.Now())
	}
	if !errors.Is(err, store.ErrNoRoot) && !errors.Is(err, store.ErrDamaged) { // a damaged one is staged anew
		return root, err
	}
	here := newReuse(st, img)
	if !errors.Is(err, store.ErrNoRoot) {
		here.roots = nil // what is beside a damaged root may be damaged, too
	}
	g, err := st.Begin(img.ID())
	if err != nil {
		return store.Root{}, err
	}
	if img.isSealed() {
		here.roots = append(here.roots, store.Kept(g))
	}
	var s *stager
	for {
		here.used = nil
		s = &stager{src: src, img: img, store: st, staging: g, tree: layer.NewTree(), progress: progress, reuse: here}
		root, err = s.stage(ctx, reference)
		// The tree was built from wrong content: start again. What was correct is an object already.
		if !errors.Is(err, source.ErrElsewhere) && !errors.Is(err, errStartAgain) {
			break
		}
	}
	switch {
	case err == nil:
		return root, nil
	case s.mayGoOn(ctx, err):
		return store.Root{}, errors.Join(s.explain(err), g.Suspend())
	}
	return store.Root{}, errors.Join(s.explain(err), g.Abort())
}

// stager is one run of Stage.
type stager struct {
	src      *source.Source
	img      *Image
	store    *store.Store
	staging  *store.Staging
	tree     *layer.Tree
	progress func(Event)
	event    Event
	reuse    *reuse
}

func (s *stager) stage(ctx context.Context, reference string) (store.Root, error) {
	verified := time.Now().UTC()
	for _, l := range s.img.Manifest.Layers {
		s.event.Total += l.Size
	}
	s.event.Layers = len(s.img.Manifest.Layers)
	if err := s.checkRoom(); err != nil {
		return store.Root{}, err
	}
	for n := range s.img.Manifest.Layers {
		if err := s.addLayer(ctx, n); err != nil {
			return store.Root{}, fmt.Errorf("cannot stage layer %d of %d: %w", n+1, s.event.Layers, err)
		}
	}
	if err := s.checkReused(ctx); err != nil {
		return store.Root{}, err
	}
	s.report(PhaseCommit)
	info, err := s.inspect()
	if err != nil {
		return store.Root{}, s.doubt(ctx, err)
	}
	info.Reference, info.VerifiedAt = reference, verified
	if err := s.writeCFS(&info); err != nil {
		return store.Root{}, s.doubt(ctx, err)
	}
	if err := s.img.checkSeal(info.RootDigest); err != nil {
		return store.Root{}, s.doubt(ctx, err)
	}
	s.keepReused()
	if err := s.staging.PutEvidence(s.img.Verified.Evidence()); err != nil {
		return store.Root{}, err
	}
	if err := ctx.Err(); err != nil {
		return store.Root{}, err
	}
	info.StagedAt = time.Now().UTC()
	root, err := s.staging.Commit(info)
	if err == nil {
		s.report(PhaseDone)
	}
	return root, err
}

// checkRoom returns an ErrNoSpace, before anything is fetched, if the root certainly does not fit. The first one needs
// at least what its compressed layers have; how much of a later one is there already is not known before it is read.
func (s *stager) checkRoom() error {
	roots, err := s.store.Roots()
	need := s.event.Total
	if len(roots) > 0 || err != nil || s.staging.NewBytes() > 0 || store.IsResumed(s.staging) {
		need = 0 // also one that cannot be read has its objects here
	}
	return s.store.CheckRoom(need)
}

// addLayer adds one layer to the tree: by its inventory, or else from its source.
func (s *stager) addLayer(ctx context.Context, n int) error {
	s.event.Layer = n + 1
	s.report(PhaseFetch)
	l := s.img.Manifest.Layers[n]
	which := inventory.Layer{Blob: l.Digest, Diff: s.img.Config.RootFS.DiffIDs[n]}
	if isHere, err := s.replay(ctx, which); isHere || err != nil {
		s.count(l.Size)
		return err
	}
	body, err := s.fetch(ctx, l)
	if err != nil {
		return err
	}
	defer body.Close()
	err = s.staging.WriteInventory(which.Name(), func(w io.Writer) error {
		list, err := inventory.NewWriter(w, which)
		if err != nil {
			return err
		}
		err = s.tree.AddBlob(&counter{r: body, count: s.count}, l.MediaType, which.Diff, s.staging.Put, list.Add)
		if errors.Is(err, ErrLayer) { // it may only not fit to what is below it
			return s.doubt(ctx, err)
		}
		if err != nil {
			return err
		}
		return list.Close()
	})
	if s.mayGoOn(ctx, err) {
		return err
	}
	if dropErr := s.staging.DropPart(l.Digest); dropErr != nil {
		return cmp.Or(err, dropErr)
	}
	if errors.Is(err, source.ErrPart) {
		return fmt.Errorf("%w: %w", errStartAgain, err)
	}
	return err
}

// mayGoOn reports whether the next run can go on where this one has failed, and saves something by that.
func (s *stager) mayGoOn(ctx context.Context, err error) bool {
	return err != nil && s.src.Remote() && (errors.Is(err, failure.ErrSource) || ctx.Err() != nil)
}

// fetch opens the blob of a layer. Where an interrupted run has kept its beginning, only the rest is fetched.
func (s *stager) fetch(ctx context.Context, l ocispec.Descriptor) (io.ReadCloser, error) {
	var file io.ReadWriteCloser
	if s.src.Remote() {
		file = s.staging.Part(l.Digest, l.Size)
	}
	if file == nil {
		return s.src.Blob(ctx, l)
	}
	body, err := s.src.BlobAfter(ctx, l, source.NewPart(file))
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &partial{body, file}, nil
}

// partial is a blob whose beginning is in a file.
type partial struct {
	io.ReadCloser
	file io.Closer
}

func (p *partial) Close() error { return errors.Join(p.ReadCloser.Close(), p.file.Close()) }

// writeCFS writes the composefs image.
func (s *stager) writeCFS(info *store.Info) error {
	f, err := s.staging.CreateCFS()
	if err != nil {
		return err
	}
	defer f.Close()
	info.RootDigest, err = composefs.Write(f, s.tree)
	if err != nil {
		return fmt.Errorf("cannot write the composefs image: %w", store.AsNoSpace(err))
	}
	return f.Close()
}

// checkStaged returns a [store.ErrDamaged] if a root that is in the store is not this image any more. The seal is
// compared with what is on the disk, not with what image.json says.
func (i *Image) checkStaged(st *store.Store, root store.Root) error {
	if err := st.Intact(root); err != nil {
		return err
	}
	if err := i.checkSeal(root.Info.RootDigest); err != nil { // now known to be that of root.cfs
		return fmt.Errorf("%w: %w", store.ErrDamaged, err)
	}
	if err := st.CheckObjects(root); err != nil {
		return err
	}
	return st.Seal(root)
}

// checkSeal compares the digest of a root with the one in the release.
func (i *Image) checkSeal(root fsverity.Digest) error {
	if !i.isSealed() || i.Seal == root {
		return nil
	}
	return fmt.Errorf("%w: the root has the digest %s, and the release seals the image with %s", verify.ErrDigest,
		root, i.Seal)
}

// isSealed reports whether a release says which digest the root has.
func (i *Image) isSealed() bool { return i.Seal != (fsverity.Digest{}) }

// explain adds to ErrNoSpace how much was written and how much is left to read.
func (s *stager) explain(err error) error {
	if !errors.Is(err, ErrNoSpace) {
		return err
	}
	size := func(bytes int64) string { return units.HumanSize(float64(bytes)) }
	return fmt.Errorf("%w (%s written, %s of %s of layers read)",
		err, size(s.staging.NewBytes()), size(s.event.Done), size(s.event.Total))
}

// report reports progress in a phase.
func (s *stager) report(phase string) {
	s.event.Phase = phase
	if s.progress != nil {
		s.progress(s.event)
	}
}

// count adds bytes read, and reports them at every step.
func (s *stager) count(n int64) {
	before := s.event.Done / progressStep
	s.event.Done += n
	if s.event.Done/progressStep != before {
		s.report(PhaseFetch)
	}
}

// counter calls count with the number of bytes of each read.
type counter struct {
	r     io.Reader
	count func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.count(int64(n))
	return n, err
}
