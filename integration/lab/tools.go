package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// toolsRecipe is the tree with other people's tools, which the product must agree with. forky has composefs, and
// cosign 3, which writes bundles.
var toolsRecipe = recipe{
	Suites:   []string{"forky"},
	Packages: []string{"cosign", "composefs", "umoci", "skopeo", "docker-registry", "ca-certificates", "attr"},
}

// oldToolsRecipe has cosign 2, which writes the older form of signatures.
var oldToolsRecipe = recipe{
	Suites:   []string{"trixie"},
	Packages: []string{"cosign", "ca-certificates"},
}

// Tools returns a tree with tools that run chrooted: cosign (3), mkcomposefs, composefs-info, mount.composefs, umoci,
// skopeo, docker-registry. They see /tmp, the cache and the enclosure's network.
func Tools(ctx context.Context) (string, error) { return tree(ctx, "tools", toolsRecipe) }

// OldTools returns a tree with cosign 2, of Debian 13.
func OldTools(ctx context.Context) (string, error) { return tree(ctx, "tools-old", oldToolsRecipe) }

// opened holds the trees of tools that this enclosure has opened.
var opened struct {
	sync.Mutex
	trees map[string]bool
}

// serving opens a tree of tools for a server, and makes a directory for the server's data; inside the enclosure only.
func serving(tree, name string) (dir string, err error) {
	if err := openTools(tree); err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp(RunDir(), name+"-"); err != nil {
		return "", fmt.Errorf("cannot make the directory of %s: %w", name, err)
	}
	return dir, nil
}

// openTools gives a tree of tools what its programs need to see; inside the enclosure only, whose mounts are its own.
func openTools(tree string) error {
	opened.Lock()
	defer opened.Unlock()
	if opened.trees[tree] {
		return nil
	}
	if opened.trees == nil {
		opened.trees = map[string]bool{}
	}
	opened.trees[tree] = true
	hosts := filepath.Join(tree, "etc/hosts") // with the registry's name in it
	if err := os.WriteFile(hosts, nil, 0o644); err != nil {
		return fmt.Errorf("cannot open the tools: %w", err)
	}
	if err := mount("/etc/hosts", hosts, "", syscall.MS_BIND); err != nil {
		return err
	}
	if err := mount("proc", filepath.Join(tree, "proc"), "proc", 0); err != nil {
		return err
	}
	for _, dir := range []string{"/dev", "/tmp", CacheDir()} {
		inside := filepath.Join(tree, dir)
		if err := os.MkdirAll(inside, 0o755); err != nil {
			return fmt.Errorf("cannot open the tools: %w", err)
		}
		if err := mount(dir, inside, "", syscall.MS_BIND|syscall.MS_REC); err != nil {
			return err
		}
	}
	return nil
}

// Chrooted returns a command of a tree of tools, which has to be open.
func Chrooted(ctx context.Context, tree, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/usr/bin/env", append([]string{name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: tree, Pdeathsig: syscall.SIGKILL}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin", "HOME=/tmp", "COSIGN_PASSWORD="}
	return cmd
}

// Tool runs a tool of a tree and returns its output; inside the enclosure only.
func Tool(ctx context.Context, tree, name string, args ...string) (string, error) {
	if err := openTools(tree); err != nil {
		return "", err
	}
	cmd := Chrooted(ctx, tree, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("cannot run %s: %w\n%s", name, err, stderr.Bytes())
	}
	return stdout.String(), nil
}
