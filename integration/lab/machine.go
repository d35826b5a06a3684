package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// packages are what the lab needs on the machine for trees and containers. Everything else comes from a tree of tools:
// installing a package such as a registry on the machine would also start its service there.
var packages = []string{"mmdebstrap", "systemd-container", "e2fsprogs", "iproute2", "util-linux", "tar", "zstd",
	"jq"}

// Machines installs what machines and logged disks need on the machine that runs the lab, and returns the path of the
// program that runs in them.
func Machines(ctx context.Context) (string, error) {
	if err := EnsurePackages(ctx, "qemu-system-x86", "qemu-utils"); err != nil {
		return "", err
	}
	return guestBinary(ctx)
}

// EnsurePackages installs those of some packages that are missing on the machine.
func EnsurePackages(ctx context.Context, names ...string) error {
	var missing []string
	for _, name := range names {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${db:Status-Status}", name).Output()
		if err != nil || string(out) != "installed" {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return step("packages", strings.Join(missing, ", "), func() error {
		if err := aptGet(ctx, "update"); err != nil {
			return err
		}
		return aptGet(ctx, append([]string{"install", "-y", "--no-install-recommends"}, missing...)...)
	})
}

// oneAptGet keeps apt-get from running beside itself: it does not wait for the lock of the package lists.
var oneAptGet sync.Mutex

func aptGet(ctx context.Context, args ...string) error {
	oneAptGet.Lock()
	defer oneAptGet.Unlock()
	args = append([]string{"-q", "-o", aptNoExpiry, "-o", "DPkg::Lock::Timeout=300"}, args...)
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot run apt-get %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// aptNoExpiry accepts an archive whose Release files have expired: the mirror may be a frozen one.
const aptNoExpiry = "Acquire::Check-Valid-Until=false"

// mirrors are the archives that the machine itself uses.
type mirrors struct{ Main, Security string }

// errNoMirror is returned when apt knows no Debian archive.
var errNoMirror = errors.New("apt has no Debian archive configured")

// findMirrors asks apt for its archives: the project contains no host name of one.
func findMirrors(ctx context.Context) (mirrors, error) {
	codename, err := osRelease("VERSION_CODENAME")
	if err != nil {
		return mirrors{}, err
	}
	ask := func() mirrors { return mirrors{aptURI(ctx, codename), aptURI(ctx, codename+"-security")} }
	m := ask()
	if m.Main == "" || m.Security == "" { // apt knows code names only from its package lists
		if err := aptGet(ctx, "update"); err != nil {
			return mirrors{}, err
		}
		m = ask()
	}
	if m.Main == "" || m.Security == "" {
		return mirrors{}, fmt.Errorf("cannot find the archives of %s and %s-security: %w", codename, codename,
			errNoMirror)
	}
	return m, nil
}

// aptURI returns the first archive that apt has for a code name, or "".
func aptURI(ctx context.Context, codename string) string {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)",
		"Created-By: Packages", "Codename: "+codename).Output()
	if err != nil {
		return ""
	}
	first, _, _ := bytes.Cut(out, []byte("\n"))
	return string(first)
}

// osRelease returns one field of the machine's os-release.
func osRelease(field string) (string, error) {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("cannot find out which Debian this is: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, field+"="); ok {
			return strings.Trim(strings.TrimSpace(value), `"`), nil
		}
	}
	return "", fmt.Errorf("cannot find out which Debian this is: no %s in /etc/os-release", field)
}
