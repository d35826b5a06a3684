package simulation

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/simulation/disk"
)

// processDisk is the disk as one process sees it.
type processDisk struct{ p *process }

// heldLock is a lock and what its holder wrote into the file.
type heldLock struct {
	process *process
	note    string
}

// local is a file's name inside the machine.
func (d processDisk) local(name string) string {
	return path.Clean("/" + strings.TrimPrefix(name, d.p.m.publisher.root))
}

// inRun reports whether a file lies in /run, which is memory.
func inRun(name string) bool { return strings.HasPrefix(name, "/run/") }

// enter crosses the seam for a file, and waits while its disk hangs. It returns the file system it is on.
func (d processDisk) enter(op, name string) disk.Files {
	m := d.p.m
	d.p.enter(op + " " + name)
	if inRun(name) {
		return m.run
	}
	for m.disk.Hung() != nil && !(m.disk.Cached() && op == "read" && name == record.RecordFile) {
		d.p.wait(context.Background(), forEver, m.disk.Hung())
	}
	return m.disk.Now
}

// forEver is longer than any history.
const forEver = 1000 * time.Hour

// refused is why a file cannot be written, nil when it can.
func (d processDisk) refused(op, name string) error {
	if !inRun(name) && d.p.m.disk.ReadOnly {
		return &fs.PathError{Op: op, Path: name, Err: unix.EROFS}
	}
	return nil
}

// change makes a change that a power cut may lose.
func (d processDisk) change(name string, do func(disk.Files)) {
	if inRun(name) {
		do(d.p.m.run)
		return
	}
	d.p.m.disk.Change(time.Now(), do)
}

// put writes a file's content, if there is room for it.
func (d processDisk) put(op, name string, n disk.File) error {
	m := d.p.m
	old := m.disk.Now[name]
	if !inRun(name) && !m.disk.Take(time.Now(), old, n) {
		return &fs.PathError{Op: op, Path: name, Err: unix.ENOSPC}
	}
	d.change(name, func(f disk.Files) { f[name] = n })
	return nil
}

func (d processDisk) sync(name string) {
	if !inRun(name) {
		d.p.m.disk.Sync()
	}
}

func (d processDisk) ReadFile(name string, limit int64) ([]byte, error) {
	name = d.local(name)
	f := d.enter("read", name)
	defer d.p.m.mu.Unlock()
	n, there := f[name]
	if !there {
		return nil, &fs.PathError{Op: "open", Path: name, Err: unix.ENOENT}
	}
	if int64(len(n.Content)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return n.Content, nil
}

func (d processDisk) Open(name string) (io.ReadCloser, error) {
	text, err := d.ReadFile(name, 1<<40)
	return io.NopCloser(bytes.NewReader(text)), err
}

// WriteFile can be killed before the temporary file is there, before that has the final name, and before that is
// durable.
func (d processDisk) WriteFile(name string, content []byte, _ fs.FileMode) error {
	name = d.local(name)
	m := d.p.m
	f := d.enter("write", name)
	err := d.refused("open", name)
	if err == nil && !f.Exists(path.Dir(name)) {
		err = &fs.PathError{Op: "open", Path: name, Err: unix.ENOENT}
	}
	half := path.Join(path.Dir(name), fmt.Sprintf(".%s.%d", path.Base(name), d.p.id))
	content = bytes.Clone(content)
	if err == nil {
		err = d.put("write", half, disk.File{Content: content})
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	f = d.enter("rename the new", name)
	if err = d.refused("rename", name); err == nil && f.Exists(half) {
		if !inRun(name) {
			m.disk.Replaced(m.disk.Now[name])
		}
		d.change(name, func(f disk.Files) {
			if n, there := f[half]; there {
				delete(f, half)
				f[name] = n
			}
		})
		if name == record.RecordFile {
			m.recorded(d.p, content)
		}
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	d.enter("sync", name)
	defer m.mu.Unlock()
	d.sync(name)
	return nil
}

// AppendLine can be killed when half of the line is there.
func (d processDisk) AppendLine(name string, line []byte) error {
	name = d.local(name)
	m := d.p.m
	f := d.enter("append to", name)
	err := d.refused("open", name)
	old := f[name]
	text := bytes.Clone(line)
	if len(old.Content) > 0 && !bytes.HasSuffix(old.Content, []byte{'\n'}) {
		text = append([]byte{'\n'}, text...)
	}
	text = append(text, '\n')
	appended := func(part []byte) disk.File {
		return disk.File{Content: append(bytes.Clone(old.Content), part...)}
	}
	if err == nil {
		err = d.put("write", name, appended(text[:len(text)/2]))
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	d.enter("append the rest to", name)
	defer m.mu.Unlock()
	err = d.put("write", name, appended(text))
	d.sync(name)
	return err
}

func (d processDisk) CreateNew(name string) (bool, error) {
	name = d.local(name)
	f := d.enter("create", name)
	defer d.p.m.mu.Unlock()
	if f.Exists(name) {
		return false, nil
	}
	if err := d.refused("open", name); err != nil {
		return false, err
	}
	d.change(name, func(f disk.Files) {
		f.MakeDir(path.Dir(name))
		f[name] = disk.File{}
	})
	return true, nil
}

func (d processDisk) Remove(name string) error {
	name = d.local(name)
	f := d.enter("remove", name)
	defer d.p.m.mu.Unlock()
	if !f.Exists(name) {
		return nil
	}
	if err := d.refused("remove", name); err != nil {
		return err
	}
	d.p.m.disk.Give(time.Now(), f[name].Room())
	d.change(name, func(f disk.Files) { f.Remove(name) })
	return nil
}

// RemoveAll can be killed when half of a tree is gone.
func (d processDisk) RemoveAll(name string) error {
	name = d.local(name)
	f := d.enter("remove the tree", name)
	err := d.refused("remove", name)
	names := f.Below(name)
	if len(names) == 0 {
		err = nil
	}
	if err == nil && len(names) > 1 {
		last := names[len(names)-1]
		d.change(name, func(f disk.Files) { delete(f, last) })
	}
	d.p.m.mu.Unlock()
	if err != nil || len(names) == 0 {
		return err
	}
	d.enter("remove the rest of", name)
	defer d.p.m.mu.Unlock()
	d.change(name, func(f disk.Files) { f.Remove(name) })
	return nil
}

func (d processDisk) Rename(from, to string) error {
	from, to = d.local(from), d.local(to)
	f := d.enter("rename "+path.Base(from)+" to", to)
	defer d.p.m.mu.Unlock()
	fail := func(err error) error { return &os.LinkError{Op: "rename", Old: from, New: to, Err: err} }
	switch {
	case !f.Exists(from), !f.Exists(path.Dir(to)):
		return fail(unix.ENOENT)
	case d.refused("rename", to) != nil:
		return fail(unix.EROFS)
	case f[to].Dir && !f.IsEmpty(to):
		return fail(unix.ENOTEMPTY)
	}
	d.change(to, func(f disk.Files) {
		if f.Exists(from) {
			f.Move(from, to)
		}
	})
	if path.Base(to) == "etc.old" { // the former /etc is retired: the root was found healthy with its new one
		id := path.Base(path.Dir(to))
		if etc, err := d.p.m.etcOf(etcPath(id)); err == nil {
			d.p.m.goodEtc[id] = etc
		}
	}
	return nil
}

func (d processDisk) Exchange(from, to string) error {
	inFrom, inTo := d.local(from), d.local(to)
	f := d.enter("exchange", inTo)
	if !f.Exists(inFrom) || !f.Exists(inTo) {
		d.p.m.mu.Unlock()
		return d.Rename(from, to)
	}
	err := d.refused("rename", inTo)
	if err == nil {
		d.change(inTo, func(f disk.Files) {
			f.Move(inTo, inTo+".exchanged")
			f.Move(inFrom, inTo)
			f.Move(inTo+".exchanged", inFrom)
		})
	}
	d.p.m.mu.Unlock()
	if err != nil {
		return err
	}
	_ = d.RemoveAll(from) // as on a host, what stays is no error
	return nil
}

func (d processDisk) MkdirAll(name string, _ fs.FileMode) error {
	name = d.local(name)
	f := d.enter("make", name)
	defer d.p.m.mu.Unlock()
	if f.Exists(name) {
		return nil
	}
	if err := d.refused("mkdir", name); err != nil {
		return err
	}
	d.change(name, func(f disk.Files) { f.MakeDir(name) })
	return nil
}

func (d processDisk) Exists(name string) bool {
	name = d.local(name)
	f := d.enter("look for", name)
	defer d.p.m.mu.Unlock()
	return f.Exists(name)
}

func (d processDisk) Glob(pattern string) ([]string, error) {
	pattern = d.local(pattern)
	f := d.enter("look for", pattern)
	defer d.p.m.mu.Unlock()
	names := f.Glob(pattern)
	for i, name := range names {
		names[i] = d.p.m.publisher.root + name
	}
	return names, nil
}

func (d processDisk) Reserve(name string, size int64) error {
	name = d.local(name)
	d.enter("reserve", name)
	defer d.p.m.mu.Unlock()
	if err := d.refused("open", name); err != nil {
		return err
	}
	return d.put("fallocate", name, disk.File{Size: size})
}

func (d processDisk) Shrink(name string, size int64) (bool, error) {
	name = d.local(name)
	f := d.enter("shrink", name)
	defer d.p.m.mu.Unlock()
	n, there := f[name]
	if !there {
		return false, nil
	}
	if err := d.refused("truncate", name); err != nil {
		return true, err
	}
	given := min(size, n.Size)
	d.p.m.disk.Give(time.Now(), given)
	d.change(name, func(f disk.Files) {
		if f[name] = (disk.File{Size: n.Size - given}); n.Size == given {
			delete(f, name)
		}
	})
	return true, nil
}

func (d processDisk) EndHolder(name string) error {
	name = d.local(name)
	m := d.p.m
	d.enter("end the holder of", name)
	defer m.mu.Unlock()
	if held, is := m.locks[name]; is {
		m.terminate(held.process)
	}
	return nil
}

func (d processDisk) TryLock(name, note string) (unlock func(), holder string, err error) {
	name = d.local(name)
	m := d.p.m
	f := d.enter("lock", name)
	defer m.mu.Unlock()
	if held, is := m.locks[name]; is {
		return nil, held.note, nil
	}
	if !f.Exists(name) {
		d.change(name, func(f disk.Files) {
			f.MakeDir(path.Dir(name))
			f[name] = disk.File{}
		})
	}
	m.locks[name] = heldLock{d.p, note}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.locks[name].process == d.p {
			delete(m.locks, name)
		}
	}, "", nil
}
