package packing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/umoci/oci/cas"
	"github.com/opencontainers/umoci/oci/cas/dir"
	"github.com/opencontainers/umoci/oci/casext"
	"github.com/opencontainers/umoci/oci/casext/blobcompress"

	"github.com/updatectl/updatectl/image/failure"
)

// ErrTree means that a root tree cannot be packed as it is.
var ErrTree = errors.New("unsuitable tree")

// Recipe says what to pack, and how.
type Recipe struct {
	Tree         string     // a root directory, or a tar file of one
	Layout       string     // the OCI layout directory to write to, which is made if it does not exist
	Tag          string     // the tag of the image in the layout
	Compression  string     // one of Compressions
	Version      string     // the version of the image, or ""
	Architecture string     // the GOARCH; "" means that of the init in the tree
	Epoch        *time.Time // SOURCE_DATE_EPOCH: no file is newer than that
}

// Packed describes the image that Pack made.
type Packed struct {
	Manifest ocispec.Descriptor
	Layer    ocispec.Descriptor
	DiffID   digest.Digest
	Platform ocispec.Platform
	Guessed  bool // no init was found, so the platform is that of this machine
}

// Compressions lists the algorithms for layers, the default first.
var Compressions = []string{"zstd", "gzip", "none"}

var algorithms = map[string]blobcompress.Algorithm{
	"zstd": blobcompress.Zstd,
	"gzip": blobcompress.Gzip,
	"none": blobcompress.Noop,
}

// Pack makes an image with one layer from a root tree. The image depends on the tree and the recipe only. The error is
// an ErrTree if the tree cannot be packed.
func Pack(ctx context.Context, r Recipe) (*Packed, error) {
	compression, ok := algorithms[r.Compression]
	if !ok {
		return nil, fmt.Errorf("cannot compress with %q: use %s", r.Compression, strings.Join(Compressions, ", "))
	}
	t, err := openTree(r.Tree, r.Epoch)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	store, err := openLayout(r.Layout)
	if err != nil {
		return nil, err
	}
	defer store.Close()

	p := &Packed{}
	if err := p.addLayer(ctx, store, t, compression); err != nil {
		return nil, err
	}
	if err := p.setPlatform(r.Architecture, t); err != nil {
		return nil, err
	}
	if err := p.addManifest(ctx, store, r); err != nil {
		return nil, err
	}
	return p, store.UpdateReference(ctx, r.Tag, p.Manifest)
}

// openLayout opens a layout, which is made if it does not exist.
func openLayout(path string) (casext.Engine, error) {
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		if err := dir.Create(path); err != nil {
			return casext.Engine{}, fmt.Errorf("cannot make the layout %s: %w", path, err)
		}
	}
	engine, err := dir.Open(path)
	if errors.Is(err, cas.ErrInvalid) {
		return casext.Engine{}, fmt.Errorf("cannot open the layout %s: it is not an OCI layout", path)
	}
	if err != nil {
		return casext.Engine{}, fmt.Errorf("cannot open the layout %s: %w", path, failure.OfFile(err))
	}
	return casext.NewEngine(engine), nil
}

// addLayer compresses the tree into a layer.
func (p *Packed) addLayer(ctx context.Context, store casext.Engine, t tree, compression blobcompress.Algorithm) error {
	plain := cas.BlobAlgorithm.Digester()
	in := &ending{ctx: ctx, r: io.TeeReader(t, plain.Hash())}
	compressed, err := compression.Compress(in)
	if err != nil {
		return err
	}
	defer compressed.Close()
	d, size, err := store.PutBlob(ctx, compressed)
	if err != nil {
		// umoci compresses in a goroutine that may still read the tree. It must end before this function does.
		in.ended.Store(true)
		_, _ = io.Copy(io.Discard, compressed)
		if in.err != nil {
			return in.err // without umoci's words: it says what could not be packed
		}
		return fmt.Errorf("cannot write the layer: %w", failure.OfFile(err))
	}
	p.DiffID = plain.Digest()
	p.Layer = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: size}
	if suffix := compression.MediaTypeSuffix(); suffix != "" {
		p.Layer.MediaType += "+" + suffix
	}
	return nil
}

// ending is a stream that can be made to end early. It also ends with its context, which umoci ignores.
type ending struct {
	ctx   context.Context
	r     io.Reader
	ended atomic.Bool
	err   error // of r
}

func (e *ending) Read(p []byte) (int, error) {
	if e.ended.Load() {
		return 0, io.EOF
	}
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := e.r.Read(p)
	if err != nil && err != io.EOF {
		e.err = err
	}
	return n, err
}

// setPlatform sets the platform: the wanted architecture, else that of the init in the tree, else that of this
// machine.
func (p *Packed) setPlatform(wanted string, t tree) error {
	p.Platform = ocispec.Platform{OS: "linux", Architecture: wanted}
	if wanted != "" {
		return nil
	}
	found, err := t.Architecture()
	if err != nil {
		return err
	}
	p.Platform.Architecture = found
	if p.Guessed = found == ""; p.Guessed {
		p.Platform.Architecture = runtime.GOARCH
	}
	return nil
}

// addManifest writes the configuration and the manifest.
func (p *Packed) addManifest(ctx context.Context, store casext.Engine, r Recipe) error {
	config, err := putJSON(ctx, store, ocispec.MediaTypeImageConfig, ocispec.Image{
		Created:  r.Epoch,
		Platform: p.Platform,
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{p.DiffID}},
		History:  []ocispec.History{{Created: r.Epoch, CreatedBy: "releasectl pack"}},
	})
	if err != nil {
		return err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config,
		Layers:    []ocispec.Descriptor{p.Layer},
	}
	if r.Version != "" {
		m.Annotations = map[string]string{ocispec.AnnotationVersion: r.Version}
	}
	p.Manifest, err = putJSON(ctx, store, ocispec.MediaTypeImageManifest, m)
	return err
}

func putJSON(ctx context.Context, store casext.Engine, mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, size, err := store.PutBlob(ctx, strings.NewReader(string(data)))
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: size}, err
}
