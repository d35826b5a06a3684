package fetcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	distribution "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/updatectl/updatectl/image/registry"
)

// argument0 is the name by which a fetcher knows that it is one.
const argument0 = "updatectl-fetcher"

// controlFD is the socket by which a fetcher gets the connection of each request.
const controlFD = 3

// prepared is whether this program can be started as a fetcher.
var prepared bool

// Main is called first by a program that may start fetchers. If this process was started as one, Main does not return.
func Main() {
	prepared = true
	if len(os.Args) == 0 || os.Args[0] != argument0 {
		return
	}
	// It ends with the process that started it. If it ended earlier, an interrupted command would report a broken
	// registry.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if err := run(os.Stdin, os.NewFile(controlFD, "control")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run answers requests until nobody can ask any more. It confines itself before it reads what it is to do.
func run(stdin io.Reader, file *os.File) error {
	if err := confineSelf(); err != nil {
		return err
	}
	var s settings
	if err := json.NewDecoder(stdin).Decode(&s); err != nil {
		return fmt.Errorf("cannot read the settings: %w", err)
	}
	repository, err := s.repository()
	if err != nil {
		return err
	}
	control, err := net.FileConn(file)
	if err != nil {
		return fmt.Errorf("cannot use the control socket: %w", err)
	}
	file.Close()
	defer control.Close()
	var requests sync.WaitGroup
	defer requests.Wait()
	for {
		conn, err := receiveConn(control.(*net.UnixConn))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot take a request: %w", err)
		}
		requests.Go(func() { answer(repository, conn) })
	}
}

// repository returns the repository to ask. Credentials are requested from root.
func (s settings) repository() (*registry.Repository, error) {
	ref, err := distribution.ParseReference(s.Reference)
	if err != nil {
		return nil, err
	}
	return registry.New(ref, registry.Options{
		PlainHTTP: s.PlainHTTP, Authorities: append([]byte{}, s.Authorities...), UserAgent: s.UserAgent, Stall: s.Stall,
		Rate: s.Rate, Impatient: s.Impatient, Credential: requestLogin,
	})
}

// conversation is the fetcher's side of a request.
type conversation struct {
	conn   net.Conn
	logins chan auth.Credential
	failed chan error // an error of root in place of credentials
}

type conversationKey struct{}

// answer answers the request of a connection. When that is closed, the request is cancelled.
func answer(repository *registry.Repository, conn net.Conn) {
	defer conn.Close()
	_, content, err := readFrame(conn, asked)
	var r request
	if err == nil {
		err = json.Unmarshal(content, &r)
	}
	if err != nil {
		return // root has gone, or it is not root that asks
	}
	c := &conversation{conn: conn, logins: make(chan auth.Credential), failed: make(chan error)}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), conversationKey{}, c))
	go func() {
		defer cancel()
		c.receive(ctx)
	}()
	err = c.serve(ctx, repository, r)
	if content, err = json.Marshal(outcomeOf(err)); err == nil {
		writeFrame(conn, ended, content) // an error means that root has gone
	}
}

// receive takes the credentials that root sends, until the connection is closed.
func (c *conversation) receive(ctx context.Context) {
	for {
		_, content, err := readFrame(c.conn, login)
		if err != nil {
			return
		}
		var l credentials
		if err := json.Unmarshal(content, &l); err != nil {
			return
		}
		if err := l.Failed.err(); err != nil {
			select {
			case c.failed <- err:
			case <-ctx.Done():
			}
			continue
		}
		select {
		case c.logins <- l.credential():
		case <-ctx.Done():
		}
	}
}

// requestLogin asks root for the credentials for a host.
func requestLogin(ctx context.Context, host string) (auth.Credential, error) {
	c, ok := ctx.Value(conversationKey{}).(*conversation)
	if !ok {
		return auth.EmptyCredential, errors.New("credentials are needed outside of a request")
	}
	if err := writeFrame(c.conn, loginFor, []byte(host)); err != nil {
		return auth.EmptyCredential, err
	}
	select {
	case l := <-c.logins:
		return l, nil
	case err := <-c.failed:
		return auth.EmptyCredential, err
	case <-ctx.Done():
		return auth.EmptyCredential, ctx.Err()
	}
}

// serve asks the registry, and sends what it answers.
func (c *conversation) serve(ctx context.Context, repository *registry.Repository, r request) error {
	switch r.Question {
	case resolve:
		d, err := repository.Resolve(ctx, r.Tag)
		if err != nil {
			return err
		}
		return c.sendFound([]ocispec.Descriptor{d})
	case referrers:
		all, err := repository.Referrers(ctx, r.Digest)
		if err != nil {
			return err
		}
		return c.sendFound(all)
	case open:
		body, at, err := repository.Open(ctx, ocispec.Descriptor{Digest: r.Digest, Size: r.Size}, r.Manifest, r.Offset)
		if err != nil {
			return err
		}
		defer body.Close()
		return c.sendBody(body, at)
	}
	return fmt.Errorf("%w: nobody asks %q", errFrame, r.Question)
}

// sendFound sends descriptors, as many as root reads. Those that root would refuse are no signatures.
func (c *conversation) sendFound(all []ocispec.Descriptor) error {
	total := 0
	for _, d := range all[:min(len(all), maxFound)] {
		one := descriptor{d.MediaType, d.Digest, d.Size, d.Annotations}
		content, err := json.Marshal(one)
		if err != nil {
			return err
		}
		if checkFound(one) != nil || len(content) > limits[found] {
			continue
		}
		if total += len(content); total > maxFoundBytes {
			break
		}
		if err := writeFrame(c.conn, found, content); err != nil {
			return err
		}
	}
	return nil
}

// sendBody sends a body that begins at an offset.
func (c *conversation) sendBody(body io.Reader, at int64) error {
	content, err := json.Marshal(start{At: at})
	if err != nil {
		return err
	}
	if err := writeFrame(c.conn, opened, content); err != nil {
		return err
	}
	frame := make([]byte, headerSize+maxData)
	for {
		n, err := body.Read(frame[headerSize:])
		if n > 0 {
			if err := sealFrame(c.conn, data, frame[:headerSize+n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
