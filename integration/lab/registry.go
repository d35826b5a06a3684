package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// A Registry is Debian's docker-registry, serving inside the enclosure on a free port, with its storage in the run's
// directory.
type Registry struct {
	Host string // "registry.lab.test:PORT", the same from the enclosure and from every host
	CA   string // path of the PEM certificate that vouches for it, "" when it speaks plain HTTP

	user, password string
	dir            string
	cmd            *exec.Cmd
}

// RegistryOptions are what a test chooses for a registry.
type RegistryOptions struct {
	TLS            bool   // with a certificate of its own CA, which nobody trusts yet
	User, Password string // basic authentication, if set
}

// StartRegistry starts a registry; inside the enclosure only.
func StartRegistry(ctx context.Context, o RegistryOptions) (*Registry, error) {
	tools, err := Tools(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := serving(tools, "registry")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	r := &Registry{Host: net.JoinHostPort(HostName, strconv.Itoa(port)), user: o.User, password: o.Password, dir: dir}
	config, err := r.configure(port, o)
	if err != nil {
		return nil, fmt.Errorf("cannot configure the registry: %w", err)
	}
	file := filepath.Join(dir, "config.yml")
	if err := writeFile(file, config); err != nil {
		return nil, fmt.Errorf("cannot configure the registry: %w", err)
	}
	return r, r.Start()
}

// configure returns the configuration, and writes the files that it names.
func (r *Registry) configure(port int, o RegistryOptions) (string, error) {
	var c strings.Builder
	fmt.Fprintf(&c, "version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\n"+
		"storage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\n", filepath.Join(r.dir, "storage"))
	if o.User != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(o.Password), bcrypt.MinCost)
		if err != nil {
			return "", err
		}
		file := filepath.Join(r.dir, "htpasswd")
		if err := writeFile(file, o.User+":"+string(hash)+"\n"); err != nil {
			return "", err
		}
		fmt.Fprintf(&c, "auth: {htpasswd: {realm: lab, path: %s}}\n", file)
	}
	fmt.Fprintf(&c, "http:\n  addr: 0.0.0.0:%d\n  secret: lab\n", port)
	if o.TLS {
		if err := r.certify(); err != nil {
			return "", err
		}
		fmt.Fprintf(&c, "  tls: {certificate: %s, key: %s}\n", r.CA, filepath.Join(r.dir, "key.pem"))
	}
	return c.String(), nil
}

// certify writes a key and a certificate that is its own CA.
func (r *Registry) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: HostName},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		DNSNames: []string{HostName}, IPAddresses: []net.IP{net.ParseIP(Addr)},
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	r.CA = filepath.Join(r.dir, "ca.pem")
	if err := writeFile(r.CA, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))); err != nil {
		return err
	}
	return writeFile(filepath.Join(r.dir, "key.pem"),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// Start starts the registry. After [Registry.Stop] it has what it had stored.
func (r *Registry) Start() error {
	tools, err := Tools(context.Background())
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(r.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("cannot start the registry: %w", err)
	}
	defer log.Close()
	r.cmd = Chrooted(context.Background(), tools, "docker-registry", "serve", filepath.Join(r.dir, "config.yml"))
	r.cmd.Env = append(r.cmd.Env, "OTEL_TRACES_EXPORTER=none")
	r.cmd.Stdout, r.cmd.Stderr = log, log
	if err := r.cmd.Start(); err != nil {
		return fmt.Errorf("cannot start the registry: %w", err)
	}
	err = poll(startTime, func() (bool, error) {
		conn, err := net.Dial("tcp", r.Host)
		if err != nil {
			return false, nil
		}
		return true, conn.Close()
	})
	if err != nil {
		r.Stop()
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("cannot start the registry: %w\n%s", err, text)
	}
	return nil
}

// Stop ends the registry and keeps what it has stored.
func (r *Registry) Stop() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// skopeo returns the options with which skopeo reaches the registry; side is "src-" or "dest-" for a copy, otherwise
// "".
func (r *Registry) skopeo(side string) []string {
	args := []string{"--" + side + "tls-verify=false"}
	if r.user != "" {
		args = append(args, "--"+side+"creds="+r.user+":"+r.password)
	}
	return args
}

// cosign returns the options with which cosign reaches the registry.
func (r *Registry) cosign() []string {
	args := []string{"--allow-insecure-registry"}
	if r.CA == "" {
		args = append(args, "--allow-http-registry")
	}
	if r.user != "" {
		args = append(args, "--registry-username", r.user, "--registry-password", r.password)
	}
	return args
}

// Storage returns the directory in which the registry stores its content, for tests that damage it.
func (r *Registry) Storage() string { return filepath.Join(r.dir, "storage") }

func freePort() (int, error) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		return 0, fmt.Errorf("cannot find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
