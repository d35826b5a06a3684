// Package packages answers which packages a root has, by the databases of its package managers, and how two roots
// differ in them. It promises that every read is bounded, and that what cannot be read is an error, not a short list.
package packages

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Format is a package manager, by the database that it keeps.
type Format string

// The package managers whose databases are read.
const (
	Dpkg   Format = "dpkg"
	RPM    Format = "rpm"
	APK    Format = "apk"
	Pacman Format = "pacman"
)

// Package is an installed package.
type Package struct {
	Format       Format `json:"format"`
	Name         string `json:"name"`
	Architecture string `json:"architecture,omitempty"`
	// Version is written as its package manager does: with the epoch, if it has one, and the revision.
	Version string `json:"version"`
	// Bytes is the installed size that the database states; 0 if it states none.
	Bytes int64 `json:"bytes,omitempty"`
}

const (
	maxPackages = 100_000 // a distribution has about as many in all, and a large desktop some thousands
	maxWord     = 512     // bytes of a name, a version or an architecture; real ones have less than 100
	maxSize     = 1 << 50 // bytes that a package may state as its size: no sum of two lists overflows
)

// Read returns the packages of a root, sorted by name; none if it has no database. An error is about databases that
// cannot be read: the others are in the list.
func Read(root rootfs.Dir) ([]Package, error) {
	var all []Package
	var errs []error
	for _, read := range []func(rootfs.Dir) ([]Package, error){readDpkg, readRPM, readAPK, readPacman} {
		list, err := read(root)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, list...)
	}
	slices.SortFunc(all, compare)
	return all, errors.Join(errs...)
}

// compare orders packages by name, architecture and package manager, and in these by the text of the version.
func compare(a, b Package) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Architecture, b.Architecture),
		cmp.Compare(a.Format, b.Format), cmp.Compare(a.Version, b.Version))
}

// add appends a package, if it is one that can be.
func add(list []Package, p Package) ([]Package, error) {
	switch {
	case p.Name == "" || p.Version == "":
		return nil, fmt.Errorf("a package has no name or no version: %.40q %.40q", p.Name, p.Version)
	case max(len(p.Name), len(p.Version), len(p.Architecture)) > maxWord:
		return nil, fmt.Errorf("the name or version of a package has more than %d bytes: %.40q", maxWord, p.Name)
	case p.Bytes < 0 || p.Bytes > maxSize:
		return nil, fmt.Errorf("the size of the package %q cannot be: %d", p.Name, p.Bytes)
	case len(list) == maxPackages:
		return nil, fmt.Errorf("there are more than %d packages", maxPackages)
	}
	return append(list, p), nil
}

// unreadable says which database cannot be read.
func unreadable(path string, err error) error {
	return fmt.Errorf("cannot read the package database %s: %w", path, err)
}
