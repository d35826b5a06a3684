// Package derived says which files in /etc programs make from others, and from which. It reads nothing from the disk.
package derived

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/updatectl/updatectl/switcher/etc/paths"
)

// HostFile is the host's own list, below /etc.
const HostFile = "updatectl/derived.toml"

// A Rule is about the files that one program makes. Paths are relative to /etc; the path of a directory
// includes everything below it.
type Rule struct {
	Name    string   `toml:"name"`
	Files   []string `toml:"files"`   // what is made; with " -> ", links whose target begins with what follows
	Sources []string `toml:"sources"` // what it is made from
	Run     []string `toml:"run"`     // the program with its arguments, nil when there is none
	Bundle  []string `toml:"bundle"`  // files of PEM certificates, to which authorities of the host are added
	Reason  string   `toml:"reason"`
}

// A List is what is derived on a host. The zero value is empty.
type List []Rule

// Parse returns the list in a file. The error names what is wrong with it.
func Parse(text string) (List, error) {
	var file struct {
		Derived List `toml:"derived"`
	}
	md, err := toml.Decode(text, &file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the list of derived files: %w", err)
	}
	for _, key := range md.Undecoded() {
		err = errors.Join(err, fmt.Errorf("%q is unknown", key.String()))
	}
	names := map[string]bool{}
	for _, r := range file.Derived {
		err = errors.Join(err, r.check())
		if names[r.Name] {
			err = errors.Join(err, fmt.Errorf("%q is there twice", r.Name))
		}
		names[r.Name] = true
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use the list of derived files: %w", err)
	}
	return file.Derived, nil
}

// check returns what is wrong with a rule.
func (r Rule) check() error {
	if r.Name == "" || strings.Contains(r.Name, "\n") || r.Reason == "" || len(r.Files) == 0 {
		return fmt.Errorf("%q needs a name, files and a reason", r.Name)
	}
	if len(r.Run) > 0 && !path.IsAbs(r.Run[0]) {
		return fmt.Errorf("%q: the program %q has no absolute path", r.Name, r.Run[0])
	}
	for _, p := range slices.Concat(r.Files, r.Sources, r.Bundle) {
		pattern, _, _ := strings.Cut(p, arrow)
		if _, err := path.Match(pattern, ""); err != nil || path.Clean(pattern) != pattern || path.IsAbs(pattern) ||
			strings.HasPrefix(pattern, ".") {
			return fmt.Errorf("%q: %q is not a path or pattern below /etc", r.Name, p)
		}
	}
	return nil
}

// arrow separates the pattern of links from the beginning of their targets.
const arrow = " -> "

// Makes reports whether the rule's program makes a path. target is what a symbolic link points to; isLink is whether it
// is one.
func (r Rule) Makes(name, target string, isLink bool) bool {
	return slices.ContainsFunc(r.Files, func(p string) bool {
		pattern, prefix, links := strings.Cut(p, arrow)
		if links {
			matches, _ := path.Match(pattern, name) // checked by Parse
			return matches && isLink && strings.HasPrefix(target, prefix)
		}
		return paths.List{pattern}.Has(name)
	})
}

// Uses reports whether the files of the rule are made from a path.
func (r Rule) Uses(name string) bool { return paths.List(r.Sources).Has(name) }

// Makes reports whether a program of the list makes a path.
func (l List) Makes(name, target string, isLink bool) bool {
	return slices.ContainsFunc(l, func(r Rule) bool { return r.Makes(name, target, isLink) })
}

// Bundles returns the bundles of all rules.
func (l List) Bundles() []string {
	var all []string
	for _, r := range l {
		all = append(all, r.Bundle...)
	}
	return all
}
