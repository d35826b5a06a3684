package fetcher

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	distribution "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/registry"
)

// answerTime is how long a fetcher may take to begin an answer. An honest one is faster: an answer takes at most
// four requests, with those for a token and after a redirect, and it gives up on each after a minute, or after four
// minutes if the registry asks to be left alone.
const answerTime = 20 * time.Minute

// errSilent is the cause when a fetcher takes longer than answerTime.
var errSilent = errors.New("the process that fetches does not answer")

// Repository is a repository in a registry that a fetcher asks.
type Repository struct {
	ref        distribution.Reference
	settings   []byte
	credential auth.CredentialFunc
	stall      time.Duration
	rate       int64

	mu      sync.Mutex
	process *process // nil before the first request, and after a failure
}

// Possible reports whether this process can start fetchers: it runs as root, and its program calls [Main].
func Possible() bool { return prepared && os.Geteuid() == 0 }

// New returns the repository of a reference. It starts no fetcher yet. The error is an ErrUnreachable.
func New(ref distribution.Reference, o registry.Options) (*Repository, error) {
	if o.Authorities == nil {
		var err error
		if o.Authorities, err = registry.Authorities(ref.Registry); err != nil {
			return nil, err
		}
	}
	if o.Credential == nil {
		o.Credential = registry.Credentials(ref)
	}
	text, err := json.Marshal(settings{
		Reference: ref.String(), PlainHTTP: o.PlainHTTP, Authorities: o.Authorities, UserAgent: o.UserAgent,
		Stall: o.Stall, Rate: o.Rate, Impatient: o.Impatient,
	})
	return &Repository{
		ref: ref, settings: text, credential: onlyFor(ref, o.Credential),
		stall: cmp.Or(o.Stall, registry.StallTime), rate: cmp.Or(o.Rate, registry.DefaultRate),
	}, err
}

// Resolve returns what a tag stands for or, if it is empty, what the reference does.
func (r *Repository) Resolve(ctx context.Context, tag string) (ocispec.Descriptor, error) {
	all, err := r.list(ctx, request{Question: resolve, Tag: tag}, 1)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if len(all) == 0 {
		return ocispec.Descriptor{}, fmt.Errorf("%w: the registry answered without a digest", failure.ErrUnreachable)
	}
	return all[0], nil
}

// Referrers lists what may refer to d.
func (r *Repository) Referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	return r.list(ctx, request{Question: referrers, Digest: d}, maxFound)
}

// list returns the descriptors, at most a number of them, with which a request is answered.
func (r *Repository) list(ctx context.Context, question request, most int) ([]ocispec.Descriptor, error) {
	c, err := r.ask(ctx, question)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	all, err := c.list(most)
	return all, c.explain(err)
}

// Open opens content at an offset. The body may start earlier: the number says where.
func (r *Repository) Open(ctx context.Context, d ocispec.Descriptor, manifest bool, offset int64) (io.ReadCloser,
	int64, error) {
	c, err := r.ask(ctx, request{Question: open, Digest: d.Digest, Size: d.Size, Manifest: manifest, Offset: offset})
	if err != nil {
		return nil, 0, err
	}
	at, err := c.begin(offset)
	if err != nil {
		err = c.explain(err)
		c.Close()
		return nil, 0, err
	}
	c.patience.Stop()
	return registry.Watch(c.ctx, c.cancel, &body{call: c}, r.stall, r.rate), at, nil
}

// ask sends a request to the fetcher.
func (r *Repository) ask(ctx context.Context, question request) (*call, error) {
	content, err := json.Marshal(question)
	if err != nil {
		return nil, err
	}
	p, conn, err := r.connect()
	if err != nil {
		return nil, err
	}
	c := &call{repository: r, process: p, conn: conn, in: bufio.NewReaderSize(conn, maxData/2)}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.patience = time.AfterFunc(answerTime, func() { c.cancel(errSilent) })
	c.stop = context.AfterFunc(c.ctx, func() { conn.Close() })
	if err := writeFrame(conn, asked, content); err != nil {
		err = c.explain(err)
		c.Close()
		return nil, err
	}
	return c, nil
}

// ErrForRootAlone means that a fetcher cannot run this program, because only root may.
var ErrForRootAlone = errors.New("only root may run this program")

// cannotStart says why there is no fetcher.
func cannotStart(err error) error {
	if errors.Is(err, unix.EACCES) {
		err = fmt.Errorf("%w: %w", ErrForRootAlone, err)
	}
	return fmt.Errorf("cannot start the process that fetches as user %d: %w", userID, err)
}

// connect returns a connection to the fetcher, which is started if there is none, or if it has ended.
func (r *Repository) connect() (*process, net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process != nil && r.process.hasEnded() {
		r.process.control.Close()
		r.process = nil
	}
	if r.process == nil {
		p, err := startProcess(r.ref.String(), r.settings)
		if err != nil {
			return nil, nil, cannotStart(err)
		}
		r.process = p
	}
	p := r.process
	conn, err := p.connect()
	if err != nil {
		r.process = nil
		p.control.Close()
		return nil, nil, fmt.Errorf("%w: %w", failure.ErrUnreachable, p.ending(err))
	}
	return p, conn, nil
}

// leave makes the next request start another fetcher. This one ends when its other requests have been answered.
func (r *Repository) leave(p *process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process == p {
		r.process = nil
		p.control.Close()
	}
}

// call is a request that is being answered.
type call struct {
	repository *Repository
	process    *process
	conn       net.Conn
	in         *bufio.Reader
	ctx        context.Context
	cancel     context.CancelCauseFunc
	stop       func() bool
	patience   *time.Timer
	logins     int // credentials that were asked for
}

// Close ends the request.
func (c *call) Close() error {
	c.patience.Stop()
	c.stop()
	c.cancel(nil)
	return c.conn.Close()
}

// next reads a frame of one of these kinds, and answers questions for credentials until it comes.
func (c *call) next(kinds ...kind) (kind, []byte, error) {
	for {
		k, content, err := readFrame(c.in, append(kinds, loginFor)...)
		if err != nil || k != loginFor {
			return k, content, err
		}
		if c.logins++; c.logins > maxLogins {
			return 0, nil, fmt.Errorf("%w: it asks for credentials again and again", errFrame)
		}
		content, err = credentialsFor(c.ctx, c.repository.credential, string(content))
		if err == nil {
			err = writeFrame(c.conn, login, content)
		}
		if err != nil {
			return 0, nil, err
		}
	}
}

// list reads descriptors, at most a number of them, until the request has ended.
func (c *call) list(most int) ([]ocispec.Descriptor, error) {
	var all []ocispec.Descriptor
	for total := 0; ; {
		k, content, err := c.next(found, ended)
		if err != nil {
			return nil, err
		}
		if k == ended {
			return all, parseEnded(content)
		}
		if total += len(content); len(all) == most || total > maxFoundBytes {
			return nil, fmt.Errorf("%w: it is one too many", errFrame)
		}
		d, err := parseFound(content)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
}

// begin reads where the body begins that was requested from an offset on.
func (c *call) begin(offset int64) (int64, error) {
	k, content, err := c.next(opened, ended)
	if err != nil {
		return 0, err
	}
	if k == opened {
		return parseOpened(content, offset)
	}
	if err = parseEnded(content); err == nil {
		err = fmt.Errorf("%w: it ends before it begins", errFrame)
	}
	return 0, err
}

// explain returns the error of a request as one of package failure. After an ErrUnreachable, the next request gets a
// new fetcher: this one may be broken, and it cannot read files that were replaced since it started, such as
// resolv.conf.
func (c *call) explain(err error) error {
	if err == nil {
		return nil
	}
	var said told
	switch {
	case context.Cause(c.ctx) == errSilent:
		err = errSilent
	case c.ctx.Err() != nil:
		err = c.ctx.Err()
	case !errors.As(err, &said) && !errors.Is(err, errFrame):
		err = c.process.ending(err)
	}
	if err = registry.Explain(err); errors.Is(err, failure.ErrUnreachable) {
		c.repository.leave(c.process)
	}
	return err
}

// body is the content that a request was answered with.
type body struct {
	*call
	left int // of the present frame
	err  error
}

// Read reads content. The error is io.EOF only if the fetcher says that the body has ended.
func (b *body) Read(p []byte) (int, error) {
	for b.err == nil && b.left == 0 {
		b.left, b.err = b.nextPart()
	}
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	n, err := b.in.Read(p[:min(len(p), b.left)])
	if b.left -= n; err != nil {
		b.err = b.explain(err)
	}
	return n, b.err
}

// nextPart returns the size of the next part of the body.
func (b *body) nextPart() (int, error) {
	k, n, err := readHeader(b.in)
	switch {
	case err != nil:
		return 0, b.explain(err)
	case k == data && n > 0:
		return n, nil
	case k == ended:
		content := make([]byte, n)
		if _, err = io.ReadFull(b.in, content); err == nil {
			err = parseEnded(content)
		}
		if err == nil {
			return 0, io.EOF
		}
		return 0, b.explain(err)
	}
	return 0, b.explain(fmt.Errorf("%w: it is no part of a body", errFrame))
}
