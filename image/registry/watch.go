package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

var (
	// errStalled is the cause when a body sends nothing for too long.
	errStalled = errors.New("no data arrived for too long")
	// errUnsent is the cause when a server takes nothing of a request for too long.
	errUnsent = errors.New("the server accepted no data for too long")
	// ErrSlow is the cause when a body is slower than it may be.
	ErrSlow = errors.New("data arrives too slowly")
)

// StallTime is the default of how long a body may send nothing. Registries that read from cold storage take up to half
// a minute for the first byte.
const StallTime = 60 * time.Second

// DefaultRate is the default of the least average rate of a body over a stall time of waiting, in bytes per second. The
// slowest connections in use, GSM and satellites, are four times as fast; at a lower rate an image would take a week.
const DefaultRate = 1 << 10

// Meter measures the rate at which something arrives. Only the time spent waiting counts.
type Meter struct {
	waited time.Duration
	got    int64
}

// Slow adds what arrived, and reports whether less than rate bytes per second did over the time span, which begins anew
// then.
func (m *Meter) Slow(n int, waited, span time.Duration, rate int64) bool {
	m.got, m.waited = m.got+int64(n), m.waited+waited
	if m.waited < span {
		return false
	}
	slow := float64(m.got) < float64(rate)*m.waited.Seconds()
	*m = Meter{}
	return slow
}

// sendPatience is how many times as long as a stall a server may take for the next part of a request: the kernel holds
// megabytes of it, and takes more only when a good part of them has been sent.
const sendPatience = 5

// watched is a transport whose bodies cannot hang, in either direction. net/http has a timeout for the header of a
// response, but for bodies only one in total, which would have to suffice for the largest layer over the slowest
// connection.
type watched struct {
	base  http.RoundTripper
	stall time.Duration
	rate  int64 // the least rate of a body
}

// RoundTrip sends a request, and watches its body and that of the response. The error can be errUnsent.
func (w *watched) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	req = req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &sentBody{ReadCloser: req.Body, cancel: cancel, patience: sendPatience * w.stall}
	}
	resp, err := w.base.RoundTrip(req)
	if err != nil {
		if context.Cause(ctx) == errUnsent {
			err = errUnsent
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = Watch(ctx, cancel, resp.Body, w.stall, w.rate)
	return resp, nil
}

// Watch returns a body that gives up when it makes no progress for a time, or less than rate bytes per second over that
// time. It then calls cancel, which has to cancel ctx and to end a Read of the body, with the cause.
func Watch(ctx context.Context, cancel context.CancelCauseFunc, body io.ReadCloser, stall time.Duration,
	rate int64) io.ReadCloser {
	return &watchedBody{body: body, ctx: ctx, cancel: cancel, stall: stall, rate: rate}
}

// watchedBody gives up on a body that sends nothing or too little. Only the time spent in Read counts.
type watchedBody struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	stall  time.Duration
	rate   int64
	timer  *time.Timer
	meter  Meter
}

// Read reads from the body. The error can be errStalled or ErrSlow.
func (w *watchedBody) Read(p []byte) (int, error) {
	if w.timer == nil {
		w.timer = time.AfterFunc(w.stall, func() { w.cancel(errStalled) })
	} else {
		w.timer.Reset(w.stall)
	}
	start := time.Now()
	n, err := w.body.Read(p)
	w.timer.Stop()
	if err == nil && w.meter.Slow(n, time.Since(start), w.stall, w.rate) {
		w.cancel(ErrSlow)
		return n, ErrSlow
	}
	if cause := context.Cause(w.ctx); err != nil && err != io.EOF && (cause == errStalled || cause == ErrSlow) {
		err = cause
	}
	return n, err
}

// Close ends the transfer.
func (w *watchedBody) Close() error {
	err := w.body.Close()
	w.cancel(nil)
	return err
}

// sentBody gives up on a server that takes no more of a request. The transport reads on only once it has sent what it
// read before, so too long a time between two reads means that nothing is sent, or that there is nothing to send.
type sentBody struct {
	io.ReadCloser
	cancel   context.CancelCauseFunc
	patience time.Duration

	mu    sync.Mutex // the transport may close a body while it reads it
	timer *time.Timer
	done  bool
}

// Read reads what is to be sent next.
func (s *sentBody) Read(p []byte) (int, error) {
	s.watch(false)
	n, err := s.ReadCloser.Read(p)
	s.watch(err != nil)
	return n, err
}

// Close ends the request's body.
func (s *sentBody) Close() error {
	s.watch(true)
	return s.ReadCloser.Close()
}

// watch starts the time again, or ends it when the body has been read.
func (s *sentBody) watch(done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.done = s.done || done; !s.done {
		s.timer = time.AfterFunc(s.patience, func() { s.cancel(errUnsent) })
	}
}
