package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Install runs "make install" for a host's tree, with the binaries that were built before.
func Install(root string) error {
	module, err := moduleDir()
	if err != nil {
		return err
	}
	if _, err := FindBinary("updatectl"); err != nil {
		return err
	}
	// "-o build" installs the binaries as they are: nothing is compiled inside the enclosure.
	out, err := exec.Command("make", "-o", "build", "-C", module, "install", "DESTDIR="+root).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot make install: %w\n%s", err, out)
	}
	return nil
}

// Follow writes the README's minimal configuration to a host's tree: the host follows a reference of a registry
// without TLS, signed by a publisher.
func Follow(root string, r *Registry, repository string, p *Publisher) error {
	config := fmt.Sprintf("[source]\nimage = %q\nplain-http = [%q]\n\n[verify]\n"+
		"keys = [\"/etc/updatectl/keys/release.pub\"]\n\n"+
		"# A test does not wait for the night.\n[schedule]\nswitch = []\ngrace = \"1s\"\n",
		r.Host+"/"+repository, r.Host)
	if err := writeFile(filepath.Join(root, "etc/updatectl/keys/release.pub"), p.Public); err != nil {
		return fmt.Errorf("cannot configure the host: %w", err)
	}
	if err := writeFile(filepath.Join(root, "etc/updatectl/updatectl.toml"), config); err != nil {
		return fmt.Errorf("cannot configure the host: %w", err)
	}
	return nil
}

// FindBinary returns the path of a built program of the project, "updatectl" or "releasectl".
func FindBinary(name string) (string, error) {
	module, err := moduleDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(module, "bin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("cannot find %s, run make first: %w", name, err)
	}
	return path, nil
}

// moduleDir returns the project's top directory; tests and "go run" start in or below it.
func moduleDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("cannot find the project: the working directory is not inside of it")
}
