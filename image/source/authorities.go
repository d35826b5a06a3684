package source

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
)

// certDirs are where podman and docker keep the authorities of single registries: DIR/HOST[:PORT]/*.crt, see
// containers-certs.d(5).
var certDirs = []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}

// Authorities returns the certificates that may vouch for a registry: the system's, and those kept for this host.
func Authorities(host string) (*x509.CertPool, error) { return authorities(certDirs, host) }

func authorities(dirs []string, host string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("%w: cannot read the system's certificates: %w", ErrUnreachable, err)
	}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, host, "*.crt"))
		if err != nil {
			return nil, fmt.Errorf("%w: cannot look for certificates: %w", ErrUnreachable, err)
		}
		for _, file := range files {
			pem, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("%w: cannot read a certificate for %s: %w", ErrUnreachable, host, err)
			}
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("%w: no certificate is in %s", ErrUnreachable, file)
			}
		}
	}
	return pool, nil
}
