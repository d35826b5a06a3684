package registry

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/failure"
)

func TestAuthorities(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "https://")
	dir := t.TempDir()
	get := func() error {
		found, err := authorities([]string{filepath.Join(dir, "none"), dir}, host)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(found)
		client := server.Client()
		client.CloseIdleConnections()
		client.Transport.(*http.Transport).TLSClientConfig.RootCAs = pool
		resp, err := client.Get(server.URL)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := get(); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("without a certificate for the host: %v", err)
	}
	file := filepath.Join(dir, host, "ca.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o755), os.WriteFile(file, text, 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := get(); err != nil {
		t.Errorf("with the host's certificate: %v", err)
	}
	if err := os.WriteFile(file, []byte("none"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := get(); !errors.Is(err, failure.ErrUnreachable) || !strings.Contains(err.Error(), "contains no certificate") {
		t.Errorf("with a broken file: %v", err)
	}
}

// TestSystemAuthorities: what is read is what crypto/x509 reads, each certificate once.
func TestSystemAuthorities(t *testing.T) {
	want, err := x509.SystemCertPool()
	if err != nil {
		t.Fatal(err)
	}
	found, err := systemAuthorities()
	got := x509.NewCertPool()
	if got.AppendCertsFromPEM(found); err != nil || !got.Equal(want) || len(found) == 0 {
		t.Errorf("%d bytes, %v: not those of the system", len(found), err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	dir := t.TempDir()
	file := filepath.Join(dir, "one.pem")
	if err := os.WriteFile(file, append(bytes.Clone(text), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("SSL_CERT_DIR", dir+":/nonexistent")
	if found, err := systemAuthorities(); err != nil || !bytes.Equal(found, text) {
		t.Errorf("with the variables: %d bytes, %v", len(found), err)
	}
	t.Setenv("SSL_CERT_FILE", dir)
	t.Setenv("SSL_CERT_DIR", "/nonexistent")
	if _, err := systemAuthorities(); !errors.Is(err, durable.ErrNotRegular) {
		t.Errorf("what cannot be read: %v", err)
	}
}

// TestOddSettings: what is no regular file is refused where certificates and credentials are read.
func TestOddSettings(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "host", "ca.crt")
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(file, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := authorities([]string{dir}, "host")
	wantError(t, err, failure.ErrUnreachable, "not a regular file")
	if _, _, err := credentialKeys(file); !errors.Is(err, durable.ErrNotRegular) {
		t.Errorf("credentials in a FIFO: %v", err)
	}
}
