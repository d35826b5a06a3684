package switcher

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
)

// Image is what is in a root, as far as it matters to the kernel that it will run on.
type Image struct {
	// Systemd is the major version of its systemd, 0 when not known.
	Systemd int `json:"systemd"`
	// Init is the path of its init, "" when it has none.
	Init string `json:"init"`
	// Machine is the GOARCH that its init is built for, "" when that is a script or something unknown.
	Machine string `json:"machine,omitempty"`
	// ISA is the x86-64 level that its init and C library need: 1 to 4, 0 when they do not say.
	ISA int `json:"isa,omitempty"`
	// Kernels are those it has modules for.
	Kernels []Kernel `json:"kernels,omitempty"`
	// Kargs are the kernel parameters it wants (/usr/lib/updatectl/kargs.d).
	Kargs []string `json:"kargs,omitempty"`
	// SELinux is its policy.
	SELinux Policy `json:"selinux,omitzero"`
}

// Kernel is one build of a kernel.
type Kernel struct {
	// Release is uname -r; Version is uname -v, "" when not known.
	Release string `json:"release"`
	Version string `json:"version,omitempty"`
}

// String names the build where it is known: some distributions keep the release over several builds.
func (k Kernel) String() string {
	if k.Version == "" {
		return k.Release
	}
	return fmt.Sprintf("%s (%s)", k.Release, k.Version)
}

// kernel finds the kernel of this release.
func (i Image) kernel(release string) (Kernel, bool) {
	n := slices.IndexFunc(i.Kernels, func(k Kernel) bool { return k.Release == release })
	if n < 0 {
		return Kernel{}, false
	}
	return i.Kernels[n], true
}

// ReadImage looks into the tree of a root: the pristine image, mounted. What it reads is bounded, and no link is followed
// out of the tree. What the image wants and cannot be understood is an error; what it does not have is not.
func ReadImage(dir string) (Image, error) {
	t := rootDir(dir)
	i := Image{Systemd: t.systemd(), Init: t.init(), Kernels: t.kernels(), SELinux: t.policy()}
	i.Machine, i.ISA = t.programs(i.Init)
	var err error
	i.Kargs, err = t.kargs(i.Machine)
	return i, err
}

// rootDir is the directory of a root, whose links lead nowhere but into it.
type rootDir string

// open opens a regular file.
func (t rootDir) open(p string) (*os.File, error) {
	full, err := securejoin.SecureJoin(string(t), p)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(full, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is not a regular file: %w", p, fs.ErrInvalid)
	}
	return f, nil
}

// read reads a regular file of at most limit bytes.
func (t rootDir) read(p string, limit int64) ([]byte, error) {
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
func (t rootDir) digest(p string, limit int64) (string, error) {
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
func (t rootDir) names(p string) []string {
	full, err := securejoin.SecureJoin(string(t), p)
	if err != nil {
		return nil
	}
	dir, err := os.OpenFile(full, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxNames)
	slices.Sort(names)
	return names
}

// has tells whether p is a regular file with one of the mode bits (or any, for 0).
func (t rootDir) has(p string, mode os.FileMode) bool { return resolves(string(t), p, mode) }

// init is the program that PID 1 becomes, in its order.
func (t rootDir) init() string {
	for _, p := range []string{"/usr/lib/systemd/systemd", "/sbin/init"} {
		if t.has(p, 0o111) {
			return p
		}
	}
	return ""
}

// libraries lists where shared libraries are: Debian has a directory for each architecture.
func (t rootDir) libraries() []string {
	dirs := []string{"/usr/lib64", "/usr/lib"}
	for _, name := range t.names("/usr/lib") {
		if strings.Contains(name, "-linux-") {
			dirs = append(dirs, filepath.Join("/usr/lib", name))
		}
	}
	return dirs
}

// systemd finds the version of systemd by the name of its library, 0 when there is none.
func (t rootDir) systemd() int {
	newest := 0
	for _, dir := range t.libraries() {
		for _, name := range t.names(filepath.Join(dir, "systemd")) {
			if version, ok := strings.CutPrefix(name, "libsystemd-shared-"); ok && strings.HasSuffix(name, ".so") {
				newest = max(newest, leadingNumber(version))
			}
		}
	}
	return newest
}

// kernels lists the kernels that have modules: a directory alone, as packages leave it behind, loads none.
func (t rootDir) kernels() []Kernel {
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
func (t rootDir) serves(k Kernel) bool {
	if !t.has(filepath.Join("/usr/lib/modules", k.Release, "modules.dep"), 0) {
		return false
	}
	return Kernel{k.Release, t.kernelVersion(k.Release)}.is(k)
}

// brings tells whether the root has the modules of this very build for sure.
func (t rootDir) brings(k Kernel) bool {
	return k.Version != "" && t.serves(k) && t.kernelVersion(k.Release) == k.Version
}

// atHand tells whether the running root has modules to carry over for the kernel: its own, or those that were carried over
// into it, beside which the kernel of another build may lie.
func (t rootDir) atHand(k Kernel, carried bool) bool {
	return t.has(filepath.Join("/usr/lib/modules", k.Release, "modules.dep"), 0) && (carried || t.serves(k))
}

// is tells whether two are the same kernel, as far as is known.
func (k Kernel) is(other Kernel) bool {
	return k.Release == other.Release && (k.Version == other.Version || k.Version == "" || other.Version == "")
}

// kernelVersion reads uname -v from the kernel beside the modules or in /boot, "" when it does not tell.
func (t rootDir) kernelVersion(release string) string {
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

// bzImageVersion reads uname -v from the header of an x86 kernel. It points, from its second sector, at the text
// "RELEASE (USER@HOST) VERSION" (kernel's x86 boot protocol, 2.00). Other architectures have nothing like it.
func bzImageVersion(f io.ReaderAt, release string) string {
	const (
		magicAt, pointerAt = 0x202, 0x20e
		sector             = 0x200
		longest            = 512
	)
	header := make([]byte, pointerAt+2)
	if _, err := f.ReadAt(header, 0); err != nil || string(header[magicAt:magicAt+4]) != "HdrS" {
		return ""
	}
	text := make([]byte, longest)
	n, err := f.ReadAt(text, int64(binary.LittleEndian.Uint16(header[pointerAt:]))+sector)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	banner := unix.ByteSliceToString(text[:n])
	if name, _, _ := strings.Cut(banner, " "); name != release {
		return ""
	}
	_, version, _ := strings.Cut(banner, ") ")
	return version
}

// Policy is an SELinux policy.
type Policy struct {
	// Type is the name of the policy, such as targeted.
	Type string `json:"type,omitempty"`
	// Digest is the sha256 of the compiled policy, in hex; "" when there is none.
	Digest string `json:"digest,omitempty"`
}

// String names a policy so that two of the same type can be told apart.
func (p Policy) String() string {
	const shown = 12
	if len(p.Digest) < shown {
		return strings.TrimSpace(p.Type + " (unknown)")
	}
	return fmt.Sprintf("%s (sha256 %s)", p.Type, p.Digest[:shown])
}

var policyFile = regexp.MustCompile(`^policy\.([0-9]{1,4})$`)

// policy reads the policy that /etc/selinux/config names (selinux_config(5)): the compiled one of the highest version.
func (t rootDir) policy() Policy {
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
