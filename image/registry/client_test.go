package registry

import (
	"bytes"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"oras.land/oras-go/v2/registry"
)

// TestClientForWriting: a server that takes no more of a blob, or that redirects it to one without TLS, is given up.
func TestClientForWriting(t *testing.T) {
	done := make(chan struct{})
	plain := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
	}))
	t.Cleanup(plain.Close)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/deaf":
			<-done
		case "/slow":
			time.Sleep(50 * time.Millisecond)
			io.Copy(io.Discard, req.Body)
		case "/elsewhere":
			http.Redirect(w, req, plain.URL, http.StatusTemporaryRedirect)
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(done) }) // first: Close waits for all requests
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	host := strings.TrimPrefix(server.URL, "https://")
	client, err := Client(registry.Reference{Registry: host, Repository: "os"},
		Options{Authorities: authority, Stall: 100 * time.Millisecond, Writes: true})
	if err != nil {
		t.Fatal(err)
	}
	blob := bytes.Repeat([]byte("blob"), 8<<20)
	for path, want := range map[string]string{
		"/deaf": "accepted no data for too long", "/elsewhere": "without TLS", "/slow": "",
	} {
		req, err := http.NewRequest(http.MethodPut, server.URL+path, bytes.NewReader(blob))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s took %v", path, took)
		}
	}
}
