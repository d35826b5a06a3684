package store

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/image/fsverity"
)

// checkedName is the file that lists the objects whose content was read and found right since the last full reboot. It
// is for file systems without fs-verity, where the kernel does not check each read.
const checkedName = "checked"

// maxChecked bounds that file, in bytes. An entry has about 85, and a root 40 000 of them.
const maxChecked = 64 << 20

// Measured is the digest of a file, and whether the kernel verifies each read of the file with it.
type Measured struct {
	Digest fsverity.Digest
	Verity bool
}

// measure returns the digest of an open file. It reads the file only if the kernel does not know the digest.
func measure(f *os.File) (Measured, error) {
	d, err := fsverity.Measure(f)
	if !errors.Is(err, fsverity.ErrNone) {
		return Measured{d, err == nil}, err
	}
	d, err = fsverity.Compute(f)
	return Measured{Digest: d}, err
}

// Measure returns the digest of the composefs image as it is on the disk, whatever image.json says.
func (r Root) Measure() (Measured, error) {
	f, err := durable.OpenRegular(r.CFS())
	if err != nil {
		return Measured{}, fmt.Errorf("cannot measure %s: %w", r.CFS(), err)
	}
	defer f.Close()
	m, err := measure(f)
	if err != nil {
		err = fmt.Errorf("cannot measure %s: %w", r.CFS(), err)
	}
	return m, err
}

// Intact returns an [ErrDamaged] if the composefs image of a root is not what image.json says, or cannot be read.
func (s *Store) Intact(r Root) error {
	if s.damagedRoots[r.ID] {
		return fmt.Errorf("%w: %s", ErrDamaged, r.Dir)
	}
	m, err := r.Measure()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if m.Digest != r.Info.RootDigest {
		return fmt.Errorf("%w: %s has the digest %s, and not %s", ErrDamaged, r.CFS(), m.Digest, r.Info.RootDigest)
	}
	return nil
}

// CheckObjects returns an [ErrDamaged] with the name of an object of the root that is missing or has other content.
// Call Intact first. Without fs-verity, an object is read once after each full reboot.
func (s *Store) CheckObjects(r Root) error {
	f, err := durable.OpenRegular(r.CFS())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer f.Close()
	known := readChecked(s)
	used := map[fsverity.Digest]bool{}
	if err := addObjects(used, f); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	for d := range used {
		if err := s.checkObject(d, known, false); err != nil {
			return err
		}
	}
	return writeChecked(s, known)
}

// HasVerity reports whether files in the store can have fs-verity. They cannot if the file system or the kernel has
// none, or a policy of the host forbids it: fs.verity.require_signatures = 1 or a security module.
func (s *Store) HasVerity() (has bool, err error) {
	f, err := os.CreateTemp(s.path(stagingDir), "verity-*")
	if err != nil {
		return false, fmt.Errorf("cannot try fs-verity: %w", AsNoSpace(err))
	}
	defer os.Remove(f.Name())
	if err := f.Close(); err != nil {
		return false, fmt.Errorf("cannot try fs-verity: %w", AsNoSpace(err))
	}
	err = seal(f.Name(), fsverity.Sum(nil))
	if errors.Is(err, fsverity.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	return err == nil, err
}

// seal makes the kernel verify each read of a file by a digest, unless it does. The error is an [ErrDamaged] if what
// is on the disk has another digest, and an [fsverity.ErrUnsupported] where there is no fs-verity.
func seal(path string, want fsverity.Digest) error {
	f, err := durable.OpenRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	d, err := fsverity.Measure(f)
	if errors.Is(err, fsverity.ErrNone) {
		if err := fsverity.Enable(f); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		d, err = fsverity.Measure(f)
	}
	if err == nil && d != want {
		err = fmt.Errorf("%w: its digest is %s and not %s", ErrDamaged, d, want)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// sealers is how many objects are sealed at once: most of the time is spent waiting for the disk.
const sealers = 8

// sealRoot seals a composefs image and every object that it refers to, also those that were stored without fs-verity.
// The image comes last: one that the kernel verifies has only objects that it verifies.
func sealRoot(cfs string, want fsverity.Digest, object func(fsverity.Digest) string) error {
	f, err := durable.OpenRegular(cfs)
	if err != nil {
		return err
	}
	defer f.Close()
	objects := map[fsverity.Digest]bool{}
	if err := addObjects(objects, f); err != nil {
		return err
	}
	var all errgroup.Group
	all.SetLimit(sealers)
	for d := range objects {
		all.Go(func() error { return seal(object(d), d) })
	}
	if err := all.Wait(); err != nil {
		return err
	}
	return seal(cfs, want)
}

// Seal makes the kernel verify a root that was staged without, where the file system can do that and is not full. It
// also seals objects of a sealed root that were replaced by files without fs-verity, as a restored backup has them.
// Check the root and its objects first.
func (s *Store) Seal(r Root) error {
	m, err := r.Measure()
	if err != nil {
		return err
	}
	has := m.Verity
	if !has {
		has, err = s.HasVerity()
	}
	if err == nil && has {
		err = sealRoot(r.CFS(), r.Info.RootDigest, s.object)
	}
	if !m.Verity && errors.Is(AsNoSpace(err), ErrNoSpace) {
		return nil // the root stays as right as it was without fs-verity
	}
	if err != nil {
		return fmt.Errorf("cannot seal the root %s: %w", r.ID, err)
	}
	return nil
}

// checked has the objects whose content was right.
type checked map[fsverity.Digest]reading

// reading is when an object was read and right.
type reading struct {
	at   int64 // the time of its last change, in nanoseconds
	here bool  // whether this process has read or written it; otherwise the list says so
}

// checkObject returns an [ErrDamaged] with the name of an object if it is missing or has other content. It notes in
// known what it has read. With whole, the kernel's digest is not enough: every block is read. Without, an object in
// which [Store.Fsck] found a wrong block stays damaged until it is replaced.
func (s *Store) checkObject(d fsverity.Digest, known checked, whole bool) error {
	name := s.object(d)
	damaged := func(err error) error { return fmt.Errorf("%w: the object %s: %w", ErrDamaged, name, err) }
	if s.damaged[d] && !whole {
		return damaged(errors.New("fsck found it damaged"))
	}
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return damaged(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return damaged(errors.New("it is no regular file"))
	}
	if r, ok := known[d]; ok && r.at == st.Ctim.Nano() && !whole {
		return nil
	}
	delete(known, d)
	f, err := durable.OpenRegular(name)
	if err != nil {
		return damaged(err)
	}
	defer f.Close()
	m, err := measure(f)
	if err == nil && m.Verity && m.Digest == d && whole {
		m.Digest, err = fsverity.Compute(f) // the kernel fails a read of a wrong block
	}
	if err != nil {
		return damaged(err)
	}
	if m.Digest != d {
		return damaged(fmt.Errorf("its digest is %s", m.Digest))
	}
	if !m.Verity {
		known[d] = reading{st.Ctim.Nano(), true}
	}
	return nil
}

// note adds an object that was just written.
func (c checked) note(d fsverity.Digest, name string) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err == nil {
		c[d] = reading{st.Ctim.Nano(), true}
	}
}

// readChecked returns what was checked since the last full reboot. It is empty if the list cannot be read.
func readChecked(s *Store) checked {
	known := checked{}
	text, err := durable.ReadRegular(s.path(checkedName), maxChecked)
	boot, lines, _ := strings.Cut(string(text), "\n")
	if err != nil || boot == "" || boot != bootID() {
		return known
	}
	for line := range strings.Lines(lines) {
		name, at, _ := strings.Cut(strings.TrimSpace(line), " ")
		d, derr := fsverity.Parse(name)
		changed, nerr := strconv.ParseInt(at, 10, 64)
		if derr == nil && nerr == nil {
			known[d] = reading{at: changed}
		}
	}
	return known
}

// writeChecked replaces the list of what was checked. If that fails, as on a full disk, the old list is removed: it
// may have an object that is damaged now. Without a list, objects are only read once more.
//
// Two commands may do this at once: fsck takes no lock, so that it can run beside a fetch and on a read-only disk. The
// list is replaced in one step, so it is always whole; the later one stays, and what only the other one had is read
// again. What fsck finds damaged does not come back by a list that was read before: fsck removes the list first, and
// what is no longer on it counts only if it was read here.
func writeChecked(s *Store, known checked) error {
	now := readChecked(s)
	maps.DeleteFunc(known, func(d fsverity.Digest, r reading) bool { return !r.here && now[d].at != r.at })
	boot := bootID()
	if boot == "" || len(known) == 0 {
		return forgetChecked(s)
	}
	var text strings.Builder
	text.WriteString(boot + "\n")
	for d, r := range known {
		fmt.Fprintf(&text, "%s %d\n", d, r.at)
	}
	if err := durable.WriteFile(s.path(checkedName), []byte(text.String()), 0o600); err != nil {
		return forgetChecked(s)
	}
	return nil
}

// forgetChecked removes the list of what was checked. On a read-only file system it stays: nothing is staged there,
// and fsck must still be able to answer.
func forgetChecked(s *Store) error {
	err := os.Remove(s.path(checkedName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("cannot remove the list of checked objects: %w", err)
	}
	return nil
}

// bootID returns what the kernel calls itself since the last full reboot, "" if it is unknown: every object is read
// then.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
