package metrics

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func answer(context.Context) ([]byte, error) { return []byte("updatectl_staged 1\n"), nil }

// TestHandler: only GET and HEAD of one path are answered, and an answer does not say why a host cannot be measured.
func TestHandler(t *testing.T) {
	secret := errors.New("cannot read /var/lib/secret")
	broken := func(context.Context) ([]byte, error) { return nil, secret }
	for _, c := range []struct {
		method, path string
		gather       func(context.Context) ([]byte, error)
		code         int
		body         string
	}{
		{"GET", "/metrics", answer, 200, "updatectl_staged 1\n"},
		{"GET", "/metrics?x=1", answer, 200, "updatectl_staged 1\n"},
		{"POST", "/metrics", answer, 405, ""},
		{"DELETE", "/metrics", answer, 405, ""},
		{"GET", "/", answer, 404, ""},
		{"GET", "/metrics/x", answer, 404, ""},
		{"GET", "/metrics", broken, 503, "this host cannot be measured now; its journal says why\n"},
	} {
		var failure error
		w := httptest.NewRecorder()
		Handler(c.gather, func(err error) { failure = err }).ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.code || c.body != "" && w.Body.String() != c.body {
			t.Errorf("%s %s is answered %d, %q", c.method, c.path, w.Code, w.Body)
		}
		if (c.code == 503) != errors.Is(failure, secret) {
			t.Errorf("%s %s: the log has %v", c.method, c.path, failure)
		}
	}
}

// TestOneAtATime: requests at once are gathered one after another.
func TestOneAtATime(t *testing.T) {
	var mu sync.Mutex
	h := Handler(func(context.Context) ([]byte, error) {
		if !mu.TryLock() {
			t.Error("two requests gather at once")
			return nil, nil
		}
		time.Sleep(time.Millisecond)
		mu.Unlock()
		return answer(t.Context())
	}, func(error) {})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil)); w.Code != 200 {
				t.Errorf("a request is answered %d", w.Code)
			}
		})
	}
	all.Wait()
}

// serving serves on a socket in a directory and on a port, and returns how to reach them and how serving ended.
func serving(t *testing.T, ctx context.Context, gather func(context.Context) ([]byte, error), idle time.Duration) (
	socket, port net.Listener, ended <-chan error) {
	t.Helper()
	socket, err := net.Listen("unix", filepath.Join(t.TempDir(), "metrics.sock"))
	if err != nil {
		t.Fatal(err)
	}
	port, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, []net.Listener{socket, port}, Handler(gather, func(error) {}), idle) }()
	return socket, port, done
}

// ask returns the answer at a socket.
func ask(t *testing.T, at net.Listener) string {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, at.Addr().Network(), at.Addr().String())
		},
	}}
	r, err := client.Get("http://host/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != 200 || r.Header.Get("Content-Type") != contentType || !r.Close {
		t.Errorf("the answer is %d, %v, connection closed: %v (%v)", r.StatusCode, r.Header, r.Close, err)
	}
	return string(body)
}

// ends waits for the end of serving.
func ends(t *testing.T, ended <-chan error) {
	t.Helper()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
}

// TestServe: every socket is answered, and it ends when told.
func TestServe(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	socket, port, ended := serving(t, ctx, answer, time.Hour)
	for _, at := range []net.Listener{socket, port, socket} {
		if got := ask(t, at); got != "updatectl_staged 1\n" {
			t.Errorf("at %v is %q", at.Addr(), got)
		}
	}
	end()
	ends(t, ended)
}

// TestIdle: it ends when nobody asks, and not while somebody waits for an answer.
func TestIdle(t *testing.T) {
	const idle = 20 * time.Millisecond
	_, _, ended := serving(t, t.Context(), answer, idle)
	ends(t, ended)

	socket, _, ended := serving(t, t.Context(), func(ctx context.Context) ([]byte, error) {
		time.Sleep(4 * idle)
		return answer(ctx)
	}, idle)
	if got := ask(t, socket); got != "updatectl_staged 1\n" {
		t.Errorf("the answer is %q", got)
	}
	ends(t, ended)
}

// TestServeBounds: a client with too much to say is sent away.
func TestServeBounds(t *testing.T) {
	_, port, _ := serving(t, t.Context(), answer, time.Hour)
	conn, err := net.Dial("tcp", port.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n")
	got := make([]byte, 12)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "HTTP/1.1 431" {
		t.Errorf("the answer begins with %q (%v)", got, err)
	}
}

// TestServeFails: a socket that is broken is an error.
func TestServeFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	err = Serve(t.Context(), []net.Listener{l}, http.NotFoundHandler(), time.Hour)
	if !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "cannot serve metrics: ") {
		t.Errorf("the error is %v", err)
	}
}

// TestServeEndsAtOnce: a client that says nothing does not hold up a shutdown.
func TestServeEndsAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, port, ended := serving(t, ctx, answer, time.Hour)
	conn, err := net.Dial("tcp", port.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	start := time.Now()
	cancel()
	if ends(t, ended); time.Since(start) > 2*time.Second {
		t.Errorf("it ended after %v", time.Since(start))
	}
}
