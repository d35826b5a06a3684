package registry

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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

// Authorities returns the certificate authorities for a registry, as PEM: those of the system, and those in certs.d for
// this host. The error is an ErrUnreachable.
func Authorities(host string) ([]byte, error) {
	system, err := systemAuthorities()
	if err != nil {
		return nil, fmt.Errorf("%w: cannot read the system's certificates: %w", failure.ErrUnreachable, err)
	}
	more, err := authorities(certDirs, host)
	return append(system, more...), err
}

// authorities returns those in directories like certs.d.
func authorities(dirs []string, host string) ([]byte, error) {
	var all []byte
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, host, "*.crt"))
		if err != nil {
			return nil, fmt.Errorf("%w: cannot find certificates: %w", failure.ErrUnreachable, err)
		}
		for _, file := range files {
			text, err := readSettings(file)
			if err != nil {
				return nil, fmt.Errorf("%w: cannot read a certificate for %s: %w", failure.ErrUnreachable, host, err)
			}
			if !x509.NewCertPool().AppendCertsFromPEM(text) {
				return nil, fmt.Errorf("%w: %s contains no certificate", failure.ErrUnreachable, file)
			}
			all = append(append(all, text...), '\n')
		}
	}
	return all, nil
}

// Where distributions keep the authorities that they trust: the first of these files that can be read, and these
// directories. crypto/x509 looks in the same places and obeys the same variables, but the pool that it returns cannot
// be sent to another process.
var (
	systemFiles = []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
		"/etc/pki/tls/cacert.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
	}
	systemDirs = []string{"/etc/ssl/certs", "/etc/pki/tls/certs"}
)

// systemAuthorities returns the authorities of the system, each once. If there are none, the error says what could not
// be read, if anything.
func systemAuthorities() ([]byte, error) {
	files, dirs := systemFiles, systemDirs
	if file := os.Getenv("SSL_CERT_FILE"); file != "" {
		files = []string{file}
	}
	if list := os.Getenv("SSL_CERT_DIR"); list != "" {
		dirs = strings.Split(list, ":")
	}
	all := certificates{seen: map[string]bool{}}
	var failed error
	for _, file := range files {
		err := all.read(file)
		if err == nil {
			break
		}
		failed = errors.Join(failed, ignoreMissing(err))
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		failed = errors.Join(failed, ignoreMissing(err))
		for _, e := range entries {
			all.read(filepath.Join(dir, e.Name())) // such a directory has other files, too
		}
	}
	if len(all.pem) == 0 {
		return nil, failed
	}
	return all.pem, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// certificates collects certificates.
type certificates struct {
	pem  []byte
	seen map[string]bool
}

// read adds the certificates in a file.
func (c *certificates) read(file string) error {
	text, err := durable.ReadRegular(file, maxSettings)
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if key := string(block.Bytes); block.Type == "CERTIFICATE" && !c.seen[key] {
			c.seen[key] = true
			c.pem = append(c.pem, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
		}
	}
	return err
}
