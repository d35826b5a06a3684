package adoption

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
	"github.com/updatectl/updatectl/switcher/fetchback"
)

// Fetched is what was fetched from the host root.
type Fetched struct {
	Path string `json:"path"`
	// Paths are the files that were written; those that were the same before are not in it.
	Paths []string `json:"paths"`
	// Replaced is the directory with what was replaced, "" when nothing was.
	Replaced string   `json:"replaced,omitempty"`
	Notes    []string `json:"notes"`
}

// ErrNotFetched means that a path cannot come from the host root into the running root.
var ErrNotFetched = errors.New("cannot fetch from the host root")

// replacedDir is where replaced files are kept.
const replacedDir = record.StateDir + "/replaced"

// Fetch copies a file or directory from the host root into the running image root: below /etc, or below a state path.
// The error is an ErrNotFetched when it belongs to neither, and a [roots.ErrNoRoot] when the host root is not mounted.
func (a *Adoption) Fetch(ctx context.Context, p string) (Fetched, error) {
	done := Fetched{Path: p, Paths: []string{}, Notes: []string{}}
	if err := a.RequireRunning(); err != nil {
		return done, err
	}
	if !a.Machine.Superuser {
		return done, fmt.Errorf("cannot write to this root: %w", host.ErrPermission)
	}
	unlock, err := a.Lock(ctx, "adopt", false)
	if err != nil {
		return done, err
	}
	defer unlock()
	f, rec, err := a.Host.Look(ctx)
	if err != nil {
		return done, err
	}
	if f.Root == switcher.HostRoot {
		return done, fmt.Errorf("%w: this is the host root", ErrNotFetched)
	}
	if rec.Moving() {
		return done, fmt.Errorf("%w: a switch is under way; try again when it is over", record.ErrBlocked)
	}
	if err := a.Machine.Trees.HostRootMounted(roots.HostMount); err != nil {
		return done, fmt.Errorf("%w: the host root is not mounted at %s; a full reboot mounts it again: %w",
			roots.ErrNoRoot, roots.HostMount, err)
	}
	base, err := a.baseOf(p, a.Machine.Mounts.Carried(a.Roots.Next(f.Root, f)))
	if err != nil {
		return done, err
	}
	replaced := path.Join(replacedDir, a.Now().UTC().Format("20060102T150405Z"))
	result, err := a.Machine.Trees.FetchBack(fetchback.Order{
		Host: roots.HostMount, Root: "/", Base: base, Path: p, Replaced: replaced,
	})
	done.Paths, done.Notes = append(done.Paths, result.Paths...), append(done.Notes, result.Notes...)
	slices.Sort(done.Paths)
	if result.Replaced {
		done.Replaced = replaced
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: it has no %s", ErrNotFetched, p)
	}
	return done, err
}

// baseOf returns /etc, or the state path that a path is below. Carried are the state paths that the running root has
// storage for. The error is an ErrNotFetched that says what is needed.
func (a *Adoption) baseOf(p string, carried []string) (string, error) {
	name, inEtc := strings.CutPrefix(p, "/etc/")
	switch {
	case !path.IsAbs(p) || path.Clean(p) != p || p == "/" || p == "/etc":
		return "", fmt.Errorf("%w: %q is not the absolute path of something in it", ErrNotFetched, p)
	case inEtc && slices.Contains(table.Files, name):
		return "", fmt.Errorf("%w: %s has the users of this root by now; add the one that is missing with useradd(8) or "+
			"groupadd(8), with the number that it has in %s%s", ErrNotFetched, p, roots.HostMount, p)
	case inEtc:
		return "/etc", nil
	}
	for _, dir := range a.Config.State.Persist {
		switch {
		case p != dir && !strings.HasPrefix(p, dir+"/"):
		case slices.Contains(carried, dir):
			return dir, nil
		default:
			return "", fmt.Errorf("%w: %s is in [state] persist, and comes along at the next switch", ErrNotFetched, dir)
		}
	}
	if dir := persistFor(p); dir != "" {
		return "", fmt.Errorf("%w: %s is not kept; add %q to [state] persist, and it comes along at the next switch",
			ErrNotFetched, dir, dir)
	}
	return "", fmt.Errorf("%w: %s comes from the image; build it into the image, or copy it to a state path from %s%s",
		ErrNotFetched, p, roots.HostMount, p)
}
