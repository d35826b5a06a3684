// Package changes answers how the /etc of a root differs from its image, and takes files from there. It promises that
// what is replaced is kept beside it.
package changes

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/program"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/configs"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/etc/derived"
	"github.com/updatectl/updatectl/switcher/etc/difference"
	"github.com/updatectl/updatectl/switcher/etc/remake"
)

// Changes are the changes of one host to the /etc of its roots.
type Changes struct {
	*host.Host
	Roots roots.Roots
}

// ErrNoImage means that a root has no image to compare its /etc with: it is the host root.
var ErrNoImage = errors.New("the host root has no image to compare its /etc with")

// Differences are what the /etc of a root has otherwise than its image.
type Differences struct {
	Root        string                  `json:"root"`
	Differences []difference.Difference `json:"differences"`
}

// Diff compares the /etc of a root, "" for the running one, with its image: at the paths and below, everywhere if there
// are none. The error is an [ErrNoImage], a [roots.ErrNoRoot] or a [host.ErrPermission].
func (c Changes) Diff(ctx context.Context, name string, paths []string) (Differences, error) {
	unlock, err := c.Lock(ctx, "compare /etc with the image", true) // it mounts in the scratch directory
	if err != nil {
		return Differences{}, err
	}
	defer unlock()
	f, _, err := c.Look(ctx)
	if err != nil {
		return Differences{}, err
	}
	d := Differences{Root: f.Root}
	if name != "" && name != switcher.HostRoot {
		root, err := c.Roots.Find(name)
		if err != nil {
			return d, err
		}
		d.Root = root.ID
	} else if name != "" {
		d.Root = name
	}
	if d.Root == switcher.HostRoot || d.Root == "" {
		return d, ErrNoImage
	}
	next := c.Roots.Next(d.Root, f)
	at := c.Roots.EtcAt(next, f)
	if d.Root != f.Root {
		at = c.Path(c.Roots.EtcOf(d.Root))
		if !c.Machine.Disk.Exists(at) {
			return d, roots.NoRoot("%s is staged but has never run, so it has no /etc of its own", d.Root)
		}
	}
	d.Differences, err = c.Machine.Trees.DiffEtc(next, at, paths)
	return d, err
}

// Take replaces a file in the running /etc by the version of the image that runs. The error is an [etc.ErrNotTaken] if
// that cannot be, an [ErrNoImage], or a [host.ErrPermission].
func (c Changes) Take(ctx context.Context, name string) (difference.Taken, error) {
	if err := c.RequireRunning(); err != nil {
		return difference.Taken{}, err
	}
	unlock, err := c.Lock(ctx, "take a file from the image", true)
	if err != nil {
		return difference.Taken{}, err
	}
	defer unlock()
	f, _, err := c.Look(ctx)
	if err != nil {
		return difference.Taken{}, err
	}
	if f.Root == switcher.HostRoot {
		return difference.Taken{}, ErrNoImage
	}
	return c.Machine.Trees.TakeEtc(c.Roots.Next(f.Root, f), c.Path("/etc"), name, c.Now())
}

// Derived is which rules of the list of derived files were followed.
type Derived struct {
	Rules []string `json:"rules"`
}

// maxDerive is how long one program may take to make its files anew: the start of services waits for it. It takes
// seconds; on a machine without a free processor, update-ca-certificates has taken more than half a minute.
const maxDerive = 2 * time.Minute

// Derive makes the derived files in /etc anew, by the programs of the running root. What fails is logged, and tried
// again at the next start.
func (c Changes) Derive(ctx context.Context) (Derived, error) {
	if err := c.RequireRunning(); err != nil {
		return Derived{}, err
	}
	rules, err := derived.Parse(configs.Derived())
	if err != nil {
		return Derived{}, err
	}
	done, err := remake.Derived(c.Path("/etc"), rules, func(argv []string) error { return runProgram(ctx, argv) })
	if err != nil {
		c.Log.Warn("cannot make all derived files in /etc anew", zap.Error(err))
	}
	return Derived{Rules: append([]string{}, done...)}, nil
}

// runProgram runs a program of the root. The error has the last line that it wrote.
func runProgram(ctx context.Context, argv []string) error {
	ctx, cancel := context.WithTimeout(ctx, maxDerive)
	defer cancel()
	output, err := program.Execute(ctx, argv, "LC_ALL=C.UTF-8")
	if err != nil {
		lines := strings.Split(strings.TrimSpace(output), "\n")
		return fmt.Errorf("%s: %w: %.200s", path.Base(argv[0]), err, lines[len(lines)-1])
	}
	return nil
}
