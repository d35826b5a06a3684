// Package remake makes the derived files of a running root anew. It promises that the host's own authorities are in the
// bundles afterwards, whatever else fails.
package remake

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/etc/authorities"
	"github.com/updatectl/updatectl/switcher/etc/derived"
	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/reserved"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// debianCerts is the directory in which programs look for an authority by its name.
const debianCerts = "ssl/certs"

// Derived makes the derived files in the /etc at dir anew: those that the merge has listed, or all if it has listed
// none. run runs a program. It returns the names of the rules whose program ran, and an error about those that could
// not be followed; all others were. The host's own authorities are in the bundles afterwards, whatever else fails.
func Derived(dir string, rules derived.List, run func(argv []string) error) (done []string, err error) {
	listed, rerr := listing.ReadText(dir, reserved.ToDerive, rootfs.MaxConfig)
	text, oerr := listing.ReadText(dir, derived.HostFile, rootfs.MaxConfig)
	own, perr := derived.Parse(string(text))
	err = errors.Join(rerr, oerr, perr)
	rules = append(slices.Clone(rules), own...)
	ours, aerr := hostAuthorities(dir)
	err = errors.Join(err, aerr, linkAuthorities(dir))
	for _, r := range rules {
		wanted := listed == nil || slices.Contains(strings.Split(string(listed), "\n"), r.Name)
		if len(r.Run) == 0 || !wanted {
			continue
		}
		if _, serr := os.Stat(r.Run[0]); errors.Is(serr, fs.ErrNotExist) {
			continue
		}
		if rerr := run(r.Run); rerr != nil {
			err = errors.Join(err, fmt.Errorf("cannot make anew what belongs to %q: %w", r.Name, rerr))
			continue
		}
		done = append(done, r.Name)
	}
	for _, name := range rules.Bundles() {
		err = errors.Join(err, addToBundle(dir, name, ours))
	}
	if err == nil {
		err = os.Remove(filepath.Join(dir, reserved.ToDerive))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return done, err
}

// hostAuthorities returns the text of the host's own authorities in an /etc.
func hostAuthorities(dir string) ([][]byte, error) {
	var texts [][]byte
	var errs []error
	for _, sub := range authorities.Dirs {
		names, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, n := range names[:min(len(names), authorities.Max)] {
			text, err := listing.ReadText(dir, path.Join(sub, n.Name()), rootfs.MaxConfig)
			if err != nil {
				errs = append(errs, err)
			}
			texts = append(texts, text)
		}
	}
	return texts, errors.Join(errs...)
}

// linkAuthorities links the host's own authorities to where Debian's program gives each its hash.
func linkAuthorities(dir string) error {
	to := filepath.Join(dir, debianCerts)
	if st, err := os.Lstat(to); err != nil || !st.IsDir() {
		return nil
	}
	names, err := os.ReadDir(filepath.Join(dir, authorities.Dir))
	if err != nil {
		return nil
	}
	var errs []error
	for _, n := range names {
		base, isCert := strings.CutSuffix(n.Name(), ".crt")
		if !isCert {
			continue
		}
		err := os.Symlink(path.Join("/etc", authorities.Dir, n.Name()), filepath.Join(to, base+".pem"))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// addToBundle adds authorities to a bundle that is there.
func addToBundle(dir, name string, ours [][]byte) error {
	text, err := listing.ReadText(dir, name, authorities.MaxBundle)
	if err != nil || text == nil {
		return err
	}
	bundle := authorities.Add(text, ours)
	if bytes.Equal(bundle, text) {
		return nil
	}
	return durable.WriteFile(filepath.Join(dir, name), bundle, 0o644)
}
