package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Install puts onto a host's tree what "make install" puts there: the binaries that were built before, and the units.
func Install(root string) error {
	module, err := moduleDir()
	if err != nil {
		return err
	}
	if _, err := FindBinary("updatectl"); err != nil {
		return err
	}
	// "-o build": what is installed are the binaries as they are, and nothing is compiled inside the enclosure
	out, err := exec.Command("make", "-o", "build", "-C", module, "install", "DESTDIR="+root).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot make install: %w\n%s", err, out)
	}
	return nil
}

// Follow configures a host's tree to follow a reference of a plain registry, signed by a publisher: what the README's
// minimal configuration says.
func Follow(root string, r *Registry, repository string, p *Publisher) error {
	config := fmt.Sprintf("[source]\nimage = %q\nplain-http = [%q]\n\n[verify]\nkeys = [\"/etc/updatectl/keys/release.pub\"]\n",
		r.Host+"/"+repository, r.Host)
	if err := writeFile(filepath.Join(root, "etc/updatectl/keys/release.pub"), p.Public); err != nil {
		return fmt.Errorf("cannot configure the host: %w", err)
	}
	if err := writeFile(filepath.Join(root, "etc/updatectl/updatectl.toml"), config); err != nil {
		return fmt.Errorf("cannot configure the host: %w", err)
	}
	return nil
}

// FindBinary is the path of a built program of the project, "updatectl" or "releasectl".
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

// moduleDir is the project's top directory, which tests and "go run" are started in or below.
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
	return "", fmt.Errorf("cannot find the project: the working directory is not inside")
}
