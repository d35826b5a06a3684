package rootfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

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

// KernelOf finds the kernel of this release.
func (i Image) KernelOf(release string) (Kernel, bool) {
	n := slices.IndexFunc(i.Kernels, func(k Kernel) bool { return k.Release == release })
	if n < 0 {
		return Kernel{}, false
	}
	return i.Kernels[n], true
}

// ReadImage looks into the tree of a root: the pristine image, mounted. What it reads is bounded, and no link is followed
// out of the tree. What the image wants and cannot be understood is an error; what it does not have is not.
func ReadImage(dir string) (Image, error) {
	t := Dir(dir)
	i := Image{Systemd: t.Systemd(), Init: t.init(), Kernels: t.Kernels(), SELinux: t.Policy()}
	i.Machine, i.ISA = t.programs(i.Init)
	var err error
	i.Kargs, err = t.kargs(i.Machine)
	return i, err
}

// SameBuild tells whether two are the same kernel, as far as is known.
func (k Kernel) SameBuild(other Kernel) bool {
	return k.Release == other.Release && (k.Version == other.Version || k.Version == "" || other.Version == "")
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
