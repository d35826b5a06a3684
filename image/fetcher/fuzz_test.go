package fetcher

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// silent is a connection to nobody.
type silent struct{ net.Conn }

func (silent) Write(p []byte) (int, error) { return len(p), nil }
func (silent) Close() error                { return nil }

// FuzzAnswer reads what a fetcher that was taken over may send: descriptors have a digest and a size, a body does not
// begin after what was requested, and all texts can be printed.
func FuzzAnswer(f *testing.F) {
	f.Add(append(frame(found, goodDescriptor), frame(ended, "{}")...))
	f.Add(append(frame(loginFor, "registry.example.org"), frame(ended, `{"kinds":["auth"],"text":"no"}`)...))
	f.Add(append(append(frame(opened, `{"at":3}`), frame(data, "content")...), frame(ended, "{}")...))
	f.Add(append(frame(opened, `{"at":0}`), frame(ended, `{"kinds":["certificate"],"text":"\u001b"}`)...))
	f.Fuzz(func(t *testing.T, answer []byte) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		done := make(chan struct{})
		close(done)
		patience := time.NewTimer(time.Hour)
		defer patience.Stop()
		newCall := func() *call {
			return &call{
				repository: &Repository{credential: func(context.Context, string) (auth.Credential, error) {
					return auth.EmptyCredential, nil
				}},
				process: &process{done: done}, conn: silent{}, in: bufio.NewReader(bytes.NewReader(answer)),
				ctx: ctx, cancel: cancel, stop: func() bool { return true }, patience: patience,
			}
		}
		c := newCall()
		all, err := c.list(maxFound)
		for _, d := range all {
			if d.Digest.Validate() != nil || d.Size < 0 || len(all) > maxFound {
				t.Errorf("it found %+v", d)
			}
		}
		if err != nil && len(c.explain(err).Error()) > maxText+200 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
		c = newCall()
		at, err := c.begin(10)
		if err != nil {
			return
		}
		if at < 0 || at > 10 {
			t.Errorf("it begins at %d", at)
		}
		n, err := io.Copy(io.Discard, &body{call: c})
		if n > int64(len(answer)) {
			t.Errorf("%d bytes of %d, %v", n, len(answer), err)
		}
	})
}
