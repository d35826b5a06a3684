// Package rootfs reads what is in the tree of a root: its init, kernels, kernel parameters, sysctls and policies. Every read
// is bounded, and no link leads out of the tree.
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

// programs reads from the init and the C library what machine they are built for, and the x86-64 level they need. The
// library counts because nothing runs without it; distributions for newer processors mark it.
func (t Dir) programs(init string) (machine string, isa int) {
	machine, isa = t.program(init)
	for _, dir := range t.libraries() {
		if m, needed := t.program(filepath.Join(dir, "libc.so.6")); m == machine { // not of another architecture beside it
			isa = max(isa, needed)
		}
	}
	return machine, isa
}

// program reads the header of an ELF program; "" and 0 when it is none.
func (t Dir) program(p string) (machine string, isa int) {
	const maxProgram = 64 << 20 // a C library has two megabytes, systemd's own a few
	f, err := t.open(p)
	if err != nil {
		return "", 0
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() > maxProgram {
		return "", 0
	}
	return readProgram(f)
}

// LeadingNumber reads the number that a version such as "257.13-1~deb13u1" begins with; 0 when there is none.
func LeadingNumber(version string) int {
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		version = version[:end]
	}
	n, _ := strconv.Atoi(version)
	return n
}

// Fragments reads the .conf files of a NAME.d, in the order of their names. A file masks those of the same name in later
// directories also when it is empty, a link to /dev/null, or cannot be read.
func (t Dir) Fragments(name string) []string {
	const maxFragment = 1 << 20
	first := map[string]string{}
	for _, dir := range configDirs {
		for _, file := range t.names(filepath.Join(dir, name)) {
			if _, masked := first[file]; masked || !strings.HasSuffix(file, ".conf") {
				continue
			}
			text, _ := t.read(filepath.Join(dir, name, file), maxFragment)
			first[file] = string(text)
		}
	}
	var texts []string
	for _, file := range slices.Sorted(maps.Keys(first)) {
		texts = append(texts, first[file])
	}
	return texts
}

// Dir is the directory of a root. Symbolic links in it are followed inside it and never lead out, also while somebody
// exchanges them.
type Dir string

// handle returns a handle of what p names, which is not opened: nothing waits for the other end of a FIFO.
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

// stat returns what p names.
func (t Dir) stat(p string) (fs.FileInfo, error) {
	f, st, err := t.handle(p)
	if err != nil {
		return nil, err
	}
	return st, f.Close()
}

// open opens a regular file. The error is fs.ErrInvalid for anything else.
func (t Dir) open(p string) (*os.File, error) {
	f, st, err := t.handle(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: %w", p, fs.ErrInvalid)
	}
	return pathrs.Reopen(f, unix.O_RDONLY)
}

// HasDir reports whether p names a directory.
func (t Dir) HasDir(p string) bool {
	st, err := t.stat(p)
	return err == nil && st.IsDir()
}

// OpenDir returns a handle of the directory p, for its path in /proc/self/fd; it cannot be read from. The error is
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

// read reads a regular file of at most limit bytes.
func (t Dir) read(p string, limit int64) ([]byte, error) {
	f, err := t.open(p)
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

// digest is the sha256 of a regular file of at most limit bytes, in hex.
func (t Dir) digest(p string, limit int64) (string, error) {
	f, err := t.open(p)
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

// maxNames bounds a directory: far more than any that is read here has.
const maxNames = 4096

// names lists a directory in order; none when there is no such directory.
func (t Dir) names(p string) []string {
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

// has reports whether p is a regular file with one of the mode bits; with 0, any regular file will do.
func (t Dir) has(p string, mode os.FileMode) bool {
	st, err := t.stat(p)
	return err == nil && st.Mode().IsRegular() && (mode == 0 || st.Mode().Perm()&mode != 0)
}

// init is the program that PID 1 becomes, in its order.
func (t Dir) init() string {
	for _, p := range []string{"/usr/lib/systemd/systemd", "/sbin/init"} {
		if t.has(p, 0o111) {
			return p
		}
	}
	return ""
}

// libraries lists where shared libraries are: Debian has a directory for each architecture.
func (t Dir) libraries() []string {
	dirs := []string{"/usr/lib64", "/usr/lib"}
	for _, name := range t.names("/usr/lib") {
		if strings.Contains(name, "-linux-") {
			dirs = append(dirs, filepath.Join("/usr/lib", name))
		}
	}
	return dirs
}

// Systemd finds the version of systemd by the name of its library, 0 when there is none.
func (t Dir) Systemd() int {
	newest := 0
	for _, dir := range t.libraries() {
		for _, name := range t.names(filepath.Join(dir, "systemd")) {
			if version, ok := strings.CutPrefix(name, "libsystemd-shared-"); ok && strings.HasSuffix(name, ".so") {
				newest = max(newest, LeadingNumber(version))
			}
		}
	}
	return newest
}

// Kernels lists the kernels that have modules: a directory alone, as packages leave it behind, loads none.
func (t Dir) Kernels() []Kernel {
	var kernels []Kernel
	for _, release := range t.names("/usr/lib/modules") {
		if t.has(filepath.Join("/usr/lib/modules", release, "modules.dep"), 0) {
			kernels = append(kernels, Kernel{release, t.kernelVersion(release)})
		}
	}
	return kernels
}

// serves tells whether the root has the modules of this kernel. Those of another build under the same release may not
// load, or worse; where the build is not known they are taken for the right ones.
func (t Dir) serves(k Kernel) bool {
	if !t.has(filepath.Join("/usr/lib/modules", k.Release, "modules.dep"), 0) {
		return false
	}
	return Kernel{k.Release, t.kernelVersion(k.Release)}.SameBuild(k)
}

// Brings tells whether the root has the modules of this very build for sure.
func (t Dir) Brings(k Kernel) bool {
	return k.Version != "" && t.serves(k) && t.kernelVersion(k.Release) == k.Version
}

// ModulesAtHand tells whether the running root has modules to carry over for the kernel: its own, or those that were carried over
// into it, beside which the kernel of another build may lie.
func (t Dir) ModulesAtHand(k Kernel, carried bool) bool {
	return t.has(filepath.Join("/usr/lib/modules", k.Release, "modules.dep"), 0) && (carried || t.serves(k))
}

// kernelVersion reads uname -v from the kernel beside the modules or in /boot, "" when it does not tell.
func (t Dir) kernelVersion(release string) string {
	for _, p := range []string{filepath.Join("/usr/lib/modules", release, "vmlinuz"), "/boot/vmlinuz-" + release} {
		f, err := t.open(p)
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

// Policy reads the policy that /etc/selinux/config names (selinux_config(5)): the compiled one of the highest version.
func (t Dir) Policy() Policy {
	const maxConfig, maxPolicy = 64 << 10, 64 << 20 // a policy has a few megabytes
	text, err := t.read("/etc/selinux/config", maxConfig)
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
	for _, name := range t.names(dir) {
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

// kargs reads the kernel parameters that a root wants on a machine; with "" on this one.
func (t Dir) kargs(machine string) ([]string, error) {
	const maxFragment = 64 << 10
	if machine == "" {
		machine = runtime.GOARCH
	}
	var all []string
	for _, name := range t.names(kargsDir) {
		if filepath.Ext(name) != ".toml" {
			continue
		}
		p := filepath.Join(kargsDir, name)
		text, err := t.read(p, maxFragment)
		if err != nil {
			return nil, fmt.Errorf("cannot read the kernel parameters that the image wants: %w", err)
		}
		kargs, err := parseKargs(string(text), machine)
		if err != nil {
			return nil, fmt.Errorf("cannot read the kernel parameters that the image wants: %s: %w", p, err)
		}
		all = append(all, kargs...)
	}
	return all, nil
}

// Acceptable tells whether systemd would take the tree as a root: an os-release, an executable init, and the mount
// points that it cannot make itself on a read-only root.
func Acceptable(root string) error {
	t := Dir(root)
	if !t.has("/etc/os-release", 0) && !t.has("/usr/lib/os-release", 0) {
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
