package registry

import (
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
		pool, err := authorities([]string{filepath.Join(dir, "none"), dir}, host)
		if err != nil {
			return err
		}
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
