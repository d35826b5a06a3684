package source

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

var (
	// errStalled is why a body that stays silent is given up on.
	errStalled = errors.New("no data arrived for too long")
	// errSlow is why a body that trickles is given up on.
	errSlow = errors.New("data arrives too slowly")
)

// leastRate is what a body must deliver in the mean of any stall time that was spent waiting for it, in bytes per
// second. The slowest lines in use, of GSM and satellites, have four times as much; at less an image would take a
// week.
const leastRate = 1 << 10

// watched is a transport whose responses do not hang: net/http has a time-out for the header of a response, but for
// its body only one for all of it, which would have to fit the largest layer over the slowest line.
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

// watchedBody gives up on a body that delivers nothing, or next to nothing, for a while. The clock only runs while
// somebody waits for a byte.
type watchedBody struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	stall  time.Duration
	timer  *time.Timer

	waited time.Duration // in this window
	got    int64         // in this window
}

// Read reads on, or ends with errStalled or errSlow.
func (w *watchedBody) Read(p []byte) (int, error) {
	if w.timer == nil {
		w.timer = time.AfterFunc(w.stall, func() { w.cancel(errStalled) })
	} else {
		w.timer.Reset(w.stall)
	}
	start := time.Now()
	n, err := w.body.Read(p)
	w.timer.Stop()
	if err == nil && w.slow(n, time.Since(start)) {
		w.cancel(errSlow)
		return n, errSlow
	}
	if cause := context.Cause(w.ctx); err != nil && err != io.EOF && (cause == errStalled || cause == errSlow) {
		err = cause
	}
	return n, err
}

// slow counts what arrived, and tells whether a window passed with too little.
func (w *watchedBody) slow(n int, waited time.Duration) bool {
	w.got, w.waited = w.got+int64(n), w.waited+waited
	if w.waited < w.stall {
		return false
	}
	slow := float64(w.got) < leastRate*w.waited.Seconds()
	w.got, w.waited = 0, 0
	return slow
}

// Close ends the transfer.
func (w *watchedBody) Close() error {
	err := w.body.Close()
	w.cancel(nil)
	return err
}
