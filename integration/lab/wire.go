package lab

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A Wire connects hosts to a registry, and can be damaged. Repositories and tags have the same names on it.
type Wire struct {
	Host string // "registry.lab.test:PORT", to be used instead of the registry's

	mu     sync.Mutex
	kind   string
	damage func(io.Reader) io.Reader
}

// What a registry serves.
const (
	Manifests = "/manifests/"
	Blobs     = "/blobs/"
)

// NewWire lays an undamaged wire to a registry for the duration of a test.
func NewWire(t testing.TB, r *Registry) *Wire {
	t.Helper()
	w := &Wire{}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: r.Host})
	proxy.ModifyResponse = w.pass
	proxy.ErrorLog = nil
	listener, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	w.Host = net.JoinHostPort(HostName, strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	server := &http.Server{Handler: proxy}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Shutdown(context.Background()) })
	return w
}

// Damage changes all bodies of one kind until [Wire.Repair]. The announced length stays: a shorter body ends with a
// cut connection.
func (w *Wire) Damage(kind string, how func(io.Reader) io.Reader) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kind, w.damage = kind, how
}

// Repair ends the damage.
func (w *Wire) Repair() { w.Damage("", nil) }

func (w *Wire) pass(res *http.Response) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.damage != nil && res.Request.Method == http.MethodGet && strings.Contains(res.Request.URL.Path, w.kind) {
		res.Body = struct {
			io.Reader
			io.Closer
		}{w.damage(res.Body), res.Body}
	}
	return nil
}

// Cut lets the first n bytes through.
func Cut(n int64) func(io.Reader) io.Reader {
	return func(r io.Reader) io.Reader { return io.LimitReader(r, n) }
}

// Flip inverts one byte.
func Flip(at int64) func(io.Reader) io.Reader {
	return func(r io.Reader) io.Reader { return &flipped{r: r, left: at} }
}

type flipped struct {
	r    io.Reader
	left int64
}

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if f.left >= 0 && f.left < int64(n) {
		p[f.left] ^= 0xff
	}
	f.left -= int64(n)
	return n, err
}

// Hold lets nothing through until a channel is closed.
func Hold(until <-chan struct{}) func(io.Reader) io.Reader {
	return func(r io.Reader) io.Reader { return &held{r, until} }
}

type held struct {
	io.Reader
	until <-chan struct{}
}

func (h *held) Read(p []byte) (int, error) {
	<-h.until
	return h.Reader.Read(p)
}
