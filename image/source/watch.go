package source

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// errStalled is why a body that stays silent is given up on.
var errStalled = errors.New("no data arrived for too long")

// watched is a transport whose responses do not hang: net/http has a time-out
// for the header of a response, but for its body only one for all of it, which
// would have to fit the largest layer over the slowest line.
type watched struct {
	base  http.RoundTripper
	stall time.Duration
}

// RoundTrip sends a request and puts its response under watch.
func (w *watched) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := w.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = &watchedBody{body: resp.Body, ctx: ctx, cancel: cancel, stall: w.stall}
	return resp, nil
}

// watchedBody gives up on a body that delivers nothing for a while. The clock
// only runs while somebody waits for a byte.
type watchedBody struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	stall  time.Duration
	timer  *time.Timer
}

// Read reads on, or ends with errStalled.
func (w *watchedBody) Read(p []byte) (int, error) {
	if w.timer == nil {
		w.timer = time.AfterFunc(w.stall, func() { w.cancel(errStalled) })
	} else {
		w.timer.Reset(w.stall)
	}
	n, err := w.body.Read(p)
	w.timer.Stop()
	if err != nil && err != io.EOF && context.Cause(w.ctx) == errStalled {
		err = errStalled
	}
	return n, err
}

// Close ends the transfer.
func (w *watchedBody) Close() error {
	err := w.body.Close()
	w.cancel(nil)
	return err
}
