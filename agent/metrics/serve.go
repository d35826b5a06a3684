package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// What a client may use up. A scrape has a request of some hundred bytes, and one connection.
const (
	maxHeader      = 8 << 10 // bytes
	maxConnections = 8       // at each socket; more wait
	readTimeout    = 5 * time.Second
	writeTimeout   = time.Minute // with gathering
	lastWords      = 5 * time.Second
)

// contentType is that of the text format of Prometheus.
const contentType = "text/plain; version=0.0.4; charset=utf-8"

// Handler returns what answers GET and HEAD of /metrics with a text, and everything else with an error. One request at
// a time gathers. If that fails, the answer is 503 without the reason, which goes to fail: it may name what is of no
// concern to who reads metrics.
func Handler(gather func(context.Context) ([]byte, error), fail func(error)) http.Handler {
	turn := make(chan struct{}, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-r.Context().Done():
			return
		}
		text, err := gather(r.Context())
		if err != nil {
			fail(err)
			http.Error(w, "this host cannot be measured now; its journal says why", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		_, _ = w.Write(text) // a client that has gone is no fault
	})
	return mux
}

// Serve answers at sockets until nobody has had a connection for as long as idle, which is no error, or until the
// context ends. It closes the sockets; whoever handed them over still has them, with the clients that come meanwhile.
func Serve(ctx context.Context, sockets []net.Listener, h http.Handler, idle time.Duration) error {
	unasked, end := context.WithCancel(ctx)
	defer end()
	open := clients{idle: idle, timer: time.AfterFunc(idle, end)}
	defer open.timer.Stop()
	server := &http.Server{
		Handler: h, MaxHeaderBytes: maxHeader, ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout,
		WriteTimeout: writeTimeout, ConnState: open.changed,
	}
	server.SetKeepAlivesEnabled(false) // or Prometheus would keep a connection from scrape to scrape
	failed := make(chan error, len(sockets))
	for _, s := range sockets {
		go func() { failed <- server.Serve(netutil.LimitListener(s, maxConnections)) }()
	}
	select {
	case err := <-failed:
		return errors.Join(fmt.Errorf("cannot serve metrics: %w", err), server.Close())
	case <-unasked.Done():
	}
	if ctx.Err() != nil { // a shutdown waits for nobody who asks
		return server.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, lastWords)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil { // a client that does not read its answer
		return server.Close()
	}
	return nil
}

// clients counts connections, and notices when there is none for a while.
type clients struct {
	mu    sync.Mutex
	open  int
	idle  time.Duration
	timer *time.Timer
}

// changed counts a connection that is new or closed.
func (c *clients) changed(_ net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.open++
		c.timer.Stop()
	case http.StateClosed, http.StateHijacked:
		if c.open--; c.open == 0 {
			c.timer.Reset(c.idle)
		}
	}
}
