package lab

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// PackageVersions are the versions of the packages of [Packages], the older one first.
var PackageVersions = [2]string{"1.0.0", "1.0.1"}

// Packages returns a directory with the .deb files that "make packages" builds of the project's sources, one for each
// of [PackageVersions]. [PackageFile] names them.
func Packages(ctx context.Context) (string, error) {
	module, err := moduleDir()
	if err != nil {
		return "", err
	}
	sum, err := sources(module)
	if err != nil {
		return "", fmt.Errorf("cannot hash the sources: %w", err)
	}
	return keep(ctx, "packages", "make packages, of two versions", sum, func(ctx context.Context, path string) error {
		return makePackages(ctx, module, path)
	})
}

// PackageFile returns the name of the .deb of a version.
func PackageFile(version string) string {
	return "updatectl_" + version + "_" + runtime.GOARCH + ".deb"
}

// makePackages builds in a copy of the sources: the binaries of the tests stay as they are.
func makePackages(ctx context.Context, module, path string) error {
	// Without .git, a build takes its version and its time from the environment.
	const script = `copy=$(mktemp -d); trap 'rm -rf "$copy"' EXIT
tar --create --directory="$0" --exclude=./.git --exclude=./bin . | tar --extract --directory="$copy"
mkdir "$1"; for version in $2; do make -C "$copy" packages VERSION=v$version; done
cp "$copy"/bin/*.deb "$1"`
	cmd := exec.CommandContext(ctx, "sh", "-ec", script, module, path, strings.Join(PackageVersions[:], " "))
	// The copy has another path every time, by which Go would compile everything again.
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1750000000", "GOFLAGS=-trimpath")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make packages: %w\n%s", err, out)
	}
	return nil
}

// sources returns a hash of every file that the programs and the scripts of a package are made of or with. No test
// looks at the documentation in it.
func sources(module string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(module, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(module, path)
		if err != nil {
			return err
		}
		if e.IsDir() && slices.Contains([]string{".git", "bin", "docs", "integration"}, name) {
			return fs.SkipDir
		}
		if !e.Type().IsRegular() || name == ".git" || strings.HasSuffix(name, "_test.go") ||
			strings.HasSuffix(name, ".md") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%s %d\n", name, len(text))
		_, err = sum.Write(text)
		return err
	})
	return fmt.Sprintf("%x", sum.Sum(nil)), err
}
