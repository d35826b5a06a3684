package etc

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/switcher/etc/accounts"
)

// build makes the directory beside dst and renames it to dst when it is complete and on disk.
func (out *outcome) build(in Inputs, dst string) error {
	parent := filepath.Dir(dst)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	tmp := dst + ".new"
	if err := durable.RemoveAll(tmp); err != nil { // left by an interrupted merge
		return err
	}
	err := out.fill(in, tmp)
	if err == nil {
		err = durable.SyncFS(tmp) // one call instead of one per file
	}
	if err == nil {
		err = durable.OS{}.Exchange(tmp, dst)
	}
	if err != nil {
		return errors.Join(err, durable.RemoveAll(tmp))
	}
	return durable.SyncDir(parent)
}

// fill creates all files in tmp. A directory is made before its content and gets its attributes after it.
func (out *outcome) fill(in Inputs, tmp string) error {
	names := slices.Sorted(maps.Keys(out.paths))
	names = append([]string{"."}, slices.DeleteFunc(names, func(n string) bool { return n == "." })...)
	refused := map[string]bool{}
	for _, name := range names {
		p, full := out.paths[name], filepath.Join(tmp, name)
		if p.entry.kind == kindDir || name == "." {
			if err := os.Mkdir(full, 0o700); err != nil {
				return err
			}
			continue
		}
		from := in.Next
		if p.side == current {
			from = in.Current
		}
		if err := p.create(filepath.Join(from, cmp.Or(p.source, name)), full); err != nil {
			return err
		}
		if err := p.entry.apply(full, refused); err != nil {
			return err
		}
	}
	for _, name := range slices.Backward(names) {
		if p := out.paths[name]; p.entry.kind == kindDir {
			if err := p.entry.apply(filepath.Join(tmp, name), refused); err != nil {
				return err
			}
		}
	}
	for attr := range refused {
		out.report.note(fmt.Sprintf("the file system of the new /etc does not support the attribute %s; left out", attr))
	}
	slices.Sort(out.report.Notes)
	return nil
}

// create makes a file, link or device at to, without its attributes.
func (p resultPath) create(from, to string) error {
	switch p.entry.kind {
	case kindLink:
		return os.Symlink(p.entry.target, to)
	case kindDevice:
		if err := unix.Mknod(to, p.entry.mode, int(p.entry.rdev)); err != nil {
			return &fs.PathError{Op: "mknod", Path: to, Err: err}
		}
		return nil
	}
	var content io.Reader = bytes.NewReader(p.content)
	if p.content == nil {
		f, err := openFile(from)
		if err != nil {
			return err
		}
		defer f.Close()
		content = f
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

// apply sets owner, mode, extended attributes, time and flags, in this order: chown(2) clears set-id bits and
// capabilities, and flags protect the rest. What the file system does not support is added to refused.
func (e entry) apply(full string, refused map[string]bool) error {
	if err := os.Lchown(full, int(e.uid), int(e.gid)); err != nil {
		return err
	}
	if e.kind != kindLink {
		if err := unix.Chmod(full, e.mode&0o7777); err != nil {
			return &fs.PathError{Op: "chmod", Path: full, Err: err}
		}
	}
	for _, attr := range slices.Sorted(maps.Keys(e.xattrs)) {
		err := unix.Lsetxattr(full, attr, []byte(e.xattrs[attr]), 0)
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
			refused[attr] = true // tmpfs, or a container that may not set labels
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "setxattr " + attr, Path: full, Err: err}
		}
	}
	times := []unix.Timespec{unix.NsecToTimespec(e.mtime.UnixNano()), unix.NsecToTimespec(e.mtime.UnixNano())}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, full, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimensat", Path: full, Err: err}
	}
	if e.flags == 0 {
		return nil
	}
	err := durable.SetFlags(full, durable.Protected, e.flags)
	for _, unsupported := range []error{unix.ENOTTY, unix.EOPNOTSUPP, unix.EPERM} {
		if errors.Is(err, unsupported) {
			refused["immutable or append-only"] = true
			return nil
		}
	}
	return err
}

// readLedger returns the ledger of numbers. It is empty before the first merge.
func readLedger(file string) (accounts.Ledger, error) {
	if file == "" {
		return accounts.ParseLedger(nil)
	}
	content, err := readText(filepath.Dir(file), filepath.Base(file), accounts.MaxLedger)
	if err != nil {
		return accounts.Ledger{}, err
	}
	l, err := accounts.ParseLedger(content)
	if err != nil {
		return accounts.Ledger{}, fmt.Errorf("cannot read %s: %w", file, err)
	}
	return l, nil
}

// writeLedger writes the ledger of numbers to disk.
func writeLedger(file string, l accounts.Ledger) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(file, l.Bytes(), 0o600)
}
