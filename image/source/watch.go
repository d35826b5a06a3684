package source

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

var (
	// errStalled is the cause when a body sends nothing for too long.
	errStalled = errors.New("no data arrived for too long")
	// errSlow is the cause when a body is slower than leastRate.
	errSlow = errors.New("data arrives too slowly")
)

// leastRate is the least average rate of a body over a stall time of waiting, in bytes per second. The slowest
// connections in use, GSM and satellites, are four times as fast; at a lower rate an image would take a week.
const leastRate = 1 << 10

// watched is a transport whose responses cannot hang. net/http has a timeout for the header of a response, but for its
// body only one in total, which would have to suffice for the largest layer over the slowest connection.
type watched struct {
	base  http.RoundTripper
	stall time.Duration
}

// RoundTrip sends a request and watches the body of the response.
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

// watchedBody gives up on a body that sends nothing or too little. Only the time spent in Read counts.
type watchedBody struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	stall  time.Duration
	timer  *time.Timer

	waited time.Duration // since the last check
	got    int64         // since the last check
}

// Read reads from the body. The error can be errStalled or errSlow.
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

// slow adds what arrived, and reports whether it was too little over the last stall time.
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
