package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A run is the state of one enclosure outside of it: a directory below the cache, with a lock that is held as long as
// one of its processes lives, and a cgroup of the same name.
type run struct {
	dir    string
	cgroup string
	lock   *os.File
}

func runsDir() string { return filepath.Join(CacheDir(), "runs") }

func newRun() (*run, error) {
	if err := os.MkdirAll(runsDir(), 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the directory of runs: %w", err)
	}
	// No sweep may remove the directory before it is locked.
	all, err := lockFile(filepath.Join(runsDir(), "lock"), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	dir, err := os.MkdirTemp(runsDir(), runPrefix)
	if err != nil {
		return nil, fmt.Errorf("cannot make the run's directory: %w", err)
	}
	lock, err := lockFile(filepath.Join(dir, "lock"), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return nil, err
	}
	r := &run{dir: dir, cgroup: runCgroup(dir), lock: lock}
	if err := os.Mkdir(r.cgroup, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the run's cgroup: %w", err)
	}
	return r, nil
}

const runPrefix = "updatectl-lab-"

// cgroupRoot returns where the machine has its cgroup2 hierarchy, alone or beside the old ones.
func cgroupRoot() string {
	const hybrid = "/sys/fs/cgroup/unified"
	if _, err := os.Stat(filepath.Join(hybrid, "cgroup.procs")); err == nil {
		return hybrid
	}
	return "/sys/fs/cgroup"
}

func runCgroup(dir string) string { return filepath.Join(cgroupRoot(), filepath.Base(dir)) }

// remove removes a run and kills what is left of its processes.
func (r *run) remove() {
	if err := clearRun(r.dir); err != nil {
		fmt.Fprintf(os.Stderr, "lab: %v\n", err)
	}
	r.lock.Close()
}

// Sweep removes what killed runs have left behind. A run that is alive holds its lock and is not touched.
func Sweep() error {
	if err := os.MkdirAll(runsDir(), 0o755); err != nil {
		return fmt.Errorf("cannot make the directory of runs: %w", err)
	}
	all, err := lockFile(filepath.Join(runsDir(), "lock"), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer all.Close()
	dirs, err := filepath.Glob(filepath.Join(runsDir(), runPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		lock, err := lockFile(filepath.Join(dir, "lock"), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return err
		}
		err = clearRun(dir)
		lock.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// clearRun kills what is still in a run's cgroup, normally nothing, and removes the cgroup and the directory.
func clearRun(dir string) error {
	cgroup := runCgroup(dir)
	if _, err := os.Stat(cgroup); err == nil {
		if err := os.WriteFile(filepath.Join(cgroup, "cgroup.kill"), []byte("1"), 0); err != nil {
			return fmt.Errorf("cannot kill what is left of a run: %w", err)
		}
		if err := awaitEmpty(cgroup); err != nil {
			return err
		}
		if err := removeCgroup(cgroup); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("cannot remove a run's directory: %w", err)
	}
	return nil
}

// awaitEmpty waits until no process is left in a cgroup: killed ones need a moment to end.
func awaitEmpty(cgroup string) error {
	return poll(gone, func() (bool, error) {
		events, err := os.ReadFile(filepath.Join(cgroup, "cgroup.events"))
		return err == nil && strings.Contains(string(events), "populated 0"), nil
	})
}

// removeCgroup removes a cgroup with those below it, deepest first.
func removeCgroup(cgroup string) error {
	var dirs []string
	err := filepath.WalkDir(cgroup, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot list cgroups: %w", err)
	}
	for _, dir := range slices.Backward(dirs) {
		if err := unix.Rmdir(dir); err != nil {
			return fmt.Errorf("cannot remove cgroup %s: %w", dir, err)
		}
	}
	return nil
}
