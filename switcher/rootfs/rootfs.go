// Package rootfs reads what is in the tree of a root: its init, kernels, kernel parameters, sysctls and policies. It
// promises that every read is bounded, and that no link leads out of the tree.
package rootfs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"
)

// programs returns what init and the C library need together.
func (t Dir) programs(init string) program {
	both := t.program(init)
	for _, dir := range t.Libraries() {
		// A library of another architecture may be there, too.
		if libc := t.program(filepath.Join(dir, "libc.so.6")); libc.machine == both.machine {
			both.isa = max(both.isa, libc.isa)
			if CompareKernels(libc.kernel, both.kernel) > 0 {
				both.kernel = libc.kernel
			}
		}
	}
	return both
}

// program reads an ELF program of the tree; the zero value is none.
func (t Dir) program(p string) program {
	const maxProgram = 64 << 20 // a C library has two megabytes, systemd's own a few
	f, err := t.Open(p)
	if err != nil {
		return program{}
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() > maxProgram {
		return program{}
	}
	return readProgram(f)
}

// LeadingNumber returns the number at the start of a version such as "257.13-1~deb13u1"; 0 when there is none.
func LeadingNumber(version string) int {
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		version = version[:end]
	}
	n, _ := strconv.Atoi(version)
	return n
}

// Fragments returns the content of the .conf files in a NAME.d, in the order of their names. A file masks those of the
// same name in later directories, even if it is empty, a link to /dev/null, or unreadable.
func (t Dir) Fragments(name string) []string {
	const maxFragment = 1 << 20
	first := map[string]string{}
	for _, dir := range configDirs {
		for _, file := range t.Names(filepath.Join(dir, name)) {
			if _, masked := first[file]; masked || !strings.HasSuffix(file, ".conf") {
				continue
			}
			text, _ := t.ReadFile(filepath.Join(dir, name, file), maxFragment)
			first[file] = string(text)
		}
	}
	var texts []string
	for _, file := range slices.Sorted(maps.Keys(first)) {
		texts = append(texts, first[file])
	}
	return texts
}

// Dir is the directory of a root. Symbolic links are followed inside it and never lead out, even if somebody exchanges
// them meanwhile.
type Dir string

// handle returns an O_PATH handle of the file at p, and what it is. The file is not opened, so a FIFO does not block.
func (t Dir) handle(p string) (*os.File, fs.FileInfo, error) {
	f, err := pathrs.OpenInRoot(string(t), p)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, st, nil
}

// stat returns what kind of file is at p.
func (t Dir) stat(p string) (fs.FileInfo, error) {
	f, st, err := t.handle(p)
	if err != nil {
		return nil, err
	}
	return st, f.Close()
}

// Open opens a regular file for reading. The error is fs.ErrInvalid for any other.
func (t Dir) Open(p string) (*os.File, error) {
	f, st, err := t.handle(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: %w", p, fs.ErrInvalid)
	}
	return pathrs.Reopen(f, unix.O_RDONLY|unix.O_NONBLOCK) // a user may hold a lease on a file of his (fcntl(2))
}

// Exists reports whether there is anything at p; a link must lead to something inside the root.
func (t Dir) Exists(p string) bool {
	_, err := t.stat(p)
	return err == nil
}

// HasDir reports whether there is a directory at p.
func (t Dir) HasDir(p string) bool {
	st, err := t.stat(p)
	return err == nil && st.IsDir()
}

// OpenDir returns an O_PATH handle of the directory at p, which can be used by its path in /proc/self/fd. The error is
// unix.ENOTDIR for anything but a directory. The caller closes the handle.
func (t Dir) OpenDir(p string) (*os.File, error) {
	f, st, err := t.handle(p)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: p, Err: unix.ENOTDIR}
	}
	return f, nil
}

// MaxConfig bounds a file in bytes that people write by hand.
const MaxConfig = 1 << 20

// ReadFile returns the content of a regular file. A file with more than limit bytes is an error.
func (t Dir) ReadFile(p string, limit int64) ([]byte, error) {
	f, err := t.Open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", p, limit)
	}
	return text, err
}

// digest returns the SHA-256 of a regular file in hexadecimal digits. A file with more than limit bytes is an error.
func (t Dir) digest(p string, limit int64) (string, error) {
	f, err := t.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("%s is larger than %d bytes", p, limit)
	}
	return hex.EncodeToString(sum.Sum(nil)), err
}

// maxNames bounds how many names of a directory are read: far more than there are in any of these. The largest is
// dpkg's, which has some ten thousand on a desktop.
const maxNames = 256 << 10

// Names returns the names in a directory, sorted; none when there is no such directory.
func (t Dir) Names(p string) []string {
	f, err := t.OpenDir(p)
	if err != nil {
		return nil
	}
	defer f.Close()
	dir, err := pathrs.Reopen(f, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxNames)
	slices.Sort(names)
	return names
}

// hasFile reports whether there is a regular file at p with one of the mode bits, or with 0, any regular file.
func (t Dir) hasFile(p string, mode os.FileMode) bool {
	st, err := t.stat(p)
	return err == nil && st.Mode().IsRegular() && (mode == 0 || st.Mode().Perm()&mode != 0)
}

// init returns the path of the program that becomes PID 1, "" when there is none. The order is systemd's.
func (t Dir) init() string {
	for _, p := range []string{"/usr/lib/systemd/systemd", "/sbin/init"} {
		if t.hasFile(p, 0o111) {
			return p
		}
	}
	return ""
}

// Libraries returns the directories of shared libraries. Debian has one for each architecture.
func (t Dir) Libraries() []string {
	dirs := []string{"/usr/lib64", "/usr/lib"}
	for _, name := range t.Names("/usr/lib") {
		if strings.Contains(name, "-linux-") {
			dirs = append(dirs, filepath.Join("/usr/lib", name))
		}
	}
	return dirs
}

// Systemd returns the major version of systemd, by the name of its library; 0 when there is none.
func (t Dir) Systemd() int {
	newest := 0
	for _, dir := range t.Libraries() {
		for _, name := range t.Names(filepath.Join(dir, "systemd")) {
			if version, ok := strings.CutPrefix(name, "libsystemd-shared-"); ok && strings.HasSuffix(name, ".so") {
				newest = max(newest, LeadingNumber(version))
			}
		}
	}
	return newest
}

// Kernels returns the kernels that the root has modules for. A directory without modules.dep, as packages leave it
// behind, does not count.
func (t Dir) Kernels() []Kernel {
	var kernels []Kernel
	for _, release := range t.Names("/usr/lib/modules") {
		if t.hasFile(filepath.Join("/usr/lib/modules", release, "modules.dep"), 0) {
			kernels = append(kernels, Kernel{release, t.kernelVersion(release)})
		}
	}
	return kernels
}

// serves reports whether the root has the modules of this kernel. Those of another build with the same release may not
// load, or worse; if a build is not known, they are taken for the right ones.
func (t Dir) serves(k Kernel) bool {
	if !t.hasFile(filepath.Join("/usr/lib/modules", k.Release, "modules.dep"), 0) {
		return false
	}
	return Kernel{k.Release, t.kernelVersion(k.Release)}.SameBuild(k)
}

// Brings reports whether the root has, for certain, the modules of this build of a kernel.
func (t Dir) Brings(k Kernel) bool {
	return k.Version != "" && t.serves(k) && t.kernelVersion(k.Release) == k.Version
}

// ModulesAtHand reports whether the running root has modules of the kernel to carry over. carried is whether they were
// carried over into this root: they are the right ones then, even if the root has the kernel image of another build.
func (t Dir) ModulesAtHand(k Kernel, carried bool) bool {
	return t.hasFile(filepath.Join("/usr/lib/modules", k.Release, "modules.dep"), 0) && (carried || t.serves(k))
}

// kernelVersion returns the uname -v of a kernel, from its image beside the modules or in /boot; "" when neither has
// it.
func (t Dir) kernelVersion(release string) string {
	for _, p := range []string{filepath.Join("/usr/lib/modules", release, "vmlinuz"), "/boot/vmlinuz-" + release} {
		f, err := t.Open(p)
		if err != nil {
			continue
		}
		defer f.Close()
		if version := bzImageVersion(f, release); version != "" {
			return version
		}
	}
	return ""
}

// Policy returns the SELinux policy that /etc/selinux/config names (selinux_config(5)), in its highest compiled
// version. It is empty when there is none.
func (t Dir) Policy() Policy {
	const maxConfig, maxPolicy = 64 << 10, 64 << 20 // a policy has a few megabytes
	text, err := t.ReadFile("/etc/selinux/config", maxConfig)
	if err != nil {
		return Policy{}
	}
	kind := ""
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch value = strings.TrimSpace(value); {
		case key == "SELINUXTYPE":
			kind = value
		case key == "SELINUX" && value == "disabled":
			return Policy{}
		}
	}
	if kind == "" || strings.ContainsRune(kind, '/') {
		return Policy{}
	}
	dir, newest := filepath.Join("/etc/selinux", kind, "policy"), -1
	for _, name := range t.Names(dir) {
		if m := policyFile.FindStringSubmatch(name); m != nil {
			version, _ := strconv.Atoi(m[1]) // four digits
			newest = max(newest, version)
		}
	}
	if newest < 0 {
		return Policy{}
	}
	digest, err := t.digest(filepath.Join(dir, fmt.Sprintf("policy.%d", newest)), maxPolicy)
	if err != nil {
		return Policy{}
	}
	return Policy{kind, digest}
}

// kargs returns the kernel parameters that a root wants on an architecture (GOARCH); "" is this one.
func (t Dir) kargs(machine string) ([]string, error) {
	const maxFragment = 64 << 10
	if machine == "" {
		machine = runtime.GOARCH
	}
	var all []string
	for _, name := range t.Names(kargsDir) {
		if filepath.Ext(name) != ".toml" {
			continue
		}
		p := filepath.Join(kargsDir, name)
		text, err := t.ReadFile(p, maxFragment)
		if err != nil {
			return nil, fmt.Errorf("cannot read the kernel parameters of the image: %w", err)
		}
		kargs, err := parseKargs(string(text), machine)
		if err != nil {
			return nil, fmt.Errorf("cannot read the kernel parameters of the image: %s: %w", p, err)
		}
		all = append(all, kargs...)
	}
	return all, nil
}

// Acceptable returns nil if systemd would accept the tree as a root, otherwise the reason: it needs an os-release, an
// executable init, and the mount points that systemd cannot make on a read-only root.
func Acceptable(root string) error {
	t := Dir(root)
	if !t.hasFile("/etc/os-release", 0) && !t.hasFile("/usr/lib/os-release", 0) {
		return errors.New("cannot use the root: it has no os-release, so systemd would stay in the old root")
	}
	if t.init() == "" {
		return errors.New("cannot use the root: it has no executable init, so systemd would freeze")
	}
	for _, p := range []string{"/dev", "/proc", "/sys", "/run"} {
		if !t.HasDir(p) {
			return fmt.Errorf("cannot use the root: it has no directory %s to mount on", p)
		}
	}
	return nil
}

// Exists reports whether there is something at path; a link counts, wherever it leads.
func Exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
