// Package contents answers what a new root has otherwise than the one that runs: packages, files, and the space that it
// takes. It promises to change nothing, and to say what of it is not known.
package contents

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/image/composefs"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/facts"
	"github.com/updatectl/updatectl/switcher/packages"
)

// Contents compares the roots of a host.
type Contents struct {
	*host.Host
	Roots roots.Roots
}

// Difference is what a root has otherwise than the one that runs.
type Difference struct {
	// Packages is nil when neither root has a database of packages, or one cannot be read.
	Packages *packages.Difference `json:"packages,omitempty"`
	// Files is nil on the host root, whose files are not listed anywhere. What does not come from the image is not
	// counted: /etc and the state.
	Files *composefs.Changes `json:"files,omitempty"`
	Space *Space             `json:"space,omitempty"`
	// Unknown says what could not be read, one sentence each.
	Unknown []string `json:"unknown,omitempty"`
}

// Space is the room on the file system of the roots, in bytes.
type Space struct {
	// Written is what staging the root wrote, because no other root had it. Free is what is left.
	Written int64 `json:"written"`
	Free    int64 `json:"free"`
}

// compared returns how two lists of packages differ. If only one root has packages, the other one has no database, and
// nothing can be said: lacking names the list that is missing.
func compared(old, fresh []packages.Package) (d *packages.Difference, lacking string) {
	switch {
	case len(old) > 0 && len(fresh) > 0:
		changed := packages.Compare(old, fresh)
		return &changed, ""
	case len(old) > 0:
		return nil, "the packages of the image"
	case len(fresh) > 0:
		return nil, "the packages that run"
	}
	return nil, ""
}

var errNoDatabase = errors.New("it has no package database")

// Of returns what a staged root has otherwise than the one that runs.
func (c Contents) Of(root store.Root, f facts.Facts) (d Difference) {
	trees := c.Machine.Trees
	unknown := func(what string, err error) bool {
		if err != nil {
			d.Unknown = append(d.Unknown, fmt.Sprintf("%s: %v", what, err))
		}
		return err == nil
	}
	running := c.Roots.Next(f.Root, f)
	if f.Root == switcher.HostRoot {
		running.HostMount = c.Path("/")
	}
	// Each list is from the image itself. What is at /var/lib/dpkg and the like while a root runs comes from there, too,
	// but only as long as [state] image-owned says so.
	old, err := trees.Packages(running)
	known := unknown("the packages that run", err)
	fresh, err := trees.Packages(c.Roots.Next(root.ID, f))
	if unknown("the packages of the image", err) && known {
		var lacking string
		if d.Packages, lacking = compared(old, fresh); lacking != "" {
			unknown(lacking, errNoDatabase)
		}
	}
	if f.Root != switcher.HostRoot {
		changed, err := c.changedFiles(f.Root, root)
		if unknown("the files that differ", err) {
			d.Files = &changed
		}
	}
	if free, err := trees.Free(root); unknown("the space that is left", err) {
		d.Space = &Space{Written: root.Info.NewBytes, Free: free}
	}
	return d
}

// changedFiles returns how the files of a staged root differ from those of the running one.
func (c Contents) changedFiles(running string, fresh store.Root) (composefs.Changes, error) {
	old, err := c.Machine.Trees.Root(running)
	if err != nil {
		return composefs.Changes{}, err
	}
	state := c.Config.State
	return c.Machine.Trees.Compare(old, fresh, func(p string) bool {
		return !comesFromImage(p, state.Persist, state.ImageOwned)
	})
}

// comesFromImage reports whether what runs at a path is what the image has there, or below it.
func comesFromImage(p string, persist, imageOwned []string) bool {
	if isWithin(p, "/etc") {
		return false
	}
	if !slices.ContainsFunc(persist, func(dir string) bool { return isWithin(p, dir) }) {
		return true
	}
	return slices.ContainsFunc(imageOwned, func(dir string) bool { return isWithin(p, dir) || isWithin(dir, p) })
}

// isWithin reports whether a path is a directory or below it.
func isWithin(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
