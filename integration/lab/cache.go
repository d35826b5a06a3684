package lab

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CacheDir returns the directory of trees, disks and the state of runs. It is never inside the source tree. What an
// older recipe made stays there until the directory is removed, which is safe whenever no lab runs.
func CacheDir() string {
	if dir := os.Getenv("UPDATECTL_LAB_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/updatectl-lab"
}

// keep returns the path of the cached thing that a recipe makes, and builds it first if it is not there. What is
// built, and how long it took, goes to standard error; what says more than the name does.
//
// The final name contains a hash of the recipe and is given by a rename at the very end: an interrupted build has no
// such name and is built anew. The lock lets two runs that need the same thing build it once.
func keep(ctx context.Context, name, what string, recipe any,
	build func(ctx context.Context, path string) error) (string, error) {
	text, err := json.Marshal(recipe)
	if err != nil {
		return "", fmt.Errorf("cannot hash the recipe of %s: %w", name, err)
	}
	path := filepath.Join(CacheDir(), fmt.Sprintf("%s-%.6x", name, sha256.Sum256(text)))
	if err := os.MkdirAll(CacheDir(), 0o755); err != nil {
		return "", fmt.Errorf("cannot make the cache: %w", err)
	}
	lock, err := lockFile(path+".lock", unix.LOCK_EX)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if _, err := os.Lstat(path); err == nil {
		return path, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cannot look up %s: %w", name, err)
	}
	partial := path + ".partial"
	if err := os.RemoveAll(partial); err != nil { // of an interrupted build
		return "", fmt.Errorf("cannot clear the way for %s: %w", name, err)
	}
	err = step(name, what, func() error { return build(ctx, partial) })
	if err != nil {
		return "", fmt.Errorf("cannot build %s: %w", name, err)
	}
	if err := os.Rename(partial, path); err != nil {
		return "", fmt.Errorf("cannot keep %s: %w", name, err)
	}
	return path, nil
}

// lockFile opens a file and takes its lock, which is released when the file is closed or the process ends.
func lockFile(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open lock: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot lock %s: %w", path, err)
	}
	return f, nil
}
