package registry

import (
	"crypto/x509"
	"fmt"
	"path/filepath"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/owned"
)

// certDirs are where podman and docker keep the certificate authorities of single registries, as DIR/HOST[:PORT]/*.crt
// (containers-certs.d(5)).
var certDirs = []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}

// maxSettings bounds a file with certificates or credentials, in bytes. All authorities of a system have 220 KiB.
const maxSettings = 4 << 20

// readSettings returns a file that says whom to believe, or with which credentials. Only root and this user may be able
// to change it.
func readSettings(file string) ([]byte, error) {
	text, err := durable.ReadRegular(file, maxSettings)
	if err == nil {
		err = owned.Check(file)
	}
	return text, err
}

// Authorities returns the certificate authorities for a registry: those of the system, and those in certs.d for this
// host. The error is an ErrUnreachable.
func Authorities(host string) (*x509.CertPool, error) { return authorities(certDirs, host) }

func authorities(dirs []string, host string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("%w: cannot read the system's certificates: %w", failure.ErrUnreachable, err)
	}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, host, "*.crt"))
		if err != nil {
			return nil, fmt.Errorf("%w: cannot find certificates: %w", failure.ErrUnreachable, err)
		}
		for _, file := range files {
			pem, err := readSettings(file)
			if err != nil {
				return nil, fmt.Errorf("%w: cannot read a certificate for %s: %w", failure.ErrUnreachable, host, err)
			}
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("%w: %s contains no certificate", failure.ErrUnreachable, file)
			}
		}
	}
	return pool, nil
}
