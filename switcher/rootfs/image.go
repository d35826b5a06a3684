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

// Image is what is in a root, as far as it matters for running on a kernel.
type Image struct {
	// Systemd is the major version of its systemd, 0 when not known.
	Systemd int `json:"systemd"`
	// Init is the path of its init, "" when it has none.
	Init string `json:"init"`
	// Machine is the GOARCH that its init is built for, "" when that is a script or something unknown.
	Machine string `json:"machine,omitempty"`
	// ISA is the x86-64 level that its init and C library need, 1 to 4; 0 when not known.
	ISA int `json:"isa,omitempty"`
	// KernelNeed is the oldest kernel that it can run on.
	KernelNeed KernelNeed `json:"kernel_need,omitzero"`
	// Kernels are the kernels that it has modules for.
	Kernels []Kernel `json:"kernels,omitempty"`
	// Kargs are the kernel parameters that it wants (/usr/lib/updatectl/kargs.d).
	Kargs []string `json:"kargs,omitempty"`
	// SELinux is its SELinux policy.
	SELinux Policy `json:"selinux,omitzero"`
	// DiskLayers are the layers between file systems and disks that it has the tools for.
	DiskLayers []DiskLayer `json:"disk_layers,omitempty"`
}

// Kernel is one build of a kernel.
type Kernel struct {
	// Release is uname -r; Version is uname -v, "" when not known.
	Release string `json:"release"`
	Version string `json:"version,omitempty"`
}

// String returns the release, and the build where it is known: some distributions keep the release across several
// builds.
func (k Kernel) String() string {
	if k.Version == "" {
		return k.Release
	}
	return fmt.Sprintf("%s (%s)", k.Release, k.Version)
}

// KernelOf returns the kernel with this release, and whether there is one.
func (i Image) KernelOf(release string) (Kernel, bool) {
	n := slices.IndexFunc(i.Kernels, func(k Kernel) bool { return k.Release == release })
	if n < 0 {
		return Kernel{}, false
	}
	return i.Kernels[n], true
}

// ReadImage returns what is in the pristine image mounted at dir. What the image lacks is no error; kernel parameters
// that cannot be parsed are.
func ReadImage(dir string) (Image, error) {
	t := Dir(dir)
	i := Image{Systemd: t.Systemd(), Init: t.init(), Kernels: t.Kernels(), SELinux: t.Policy(),
		DiskLayers: t.diskLayers()}
	needs := t.programs(i.Init)
	i.Machine, i.ISA, i.KernelNeed = needs.machine, needs.isa, t.kernelNeed(i.Systemd, needs.kernel)
	var err error
	i.Kargs, err = t.kargs(i.Machine)
	return i, err
}

// SameBuild reports whether two kernels are the same, as far as that is known.
func (k Kernel) SameBuild(other Kernel) bool {
	return k.Release == other.Release && (k.Version == other.Version || k.Version == "" || other.Version == "")
}

// bzImageVersion returns the uname -v of an x86 kernel image, "" when it is none or has another release. Its header has
// the offset, from the second sector, of the text "RELEASE (USER@HOST) VERSION" (x86 boot protocol, 2.00). Other
// architectures have nothing like it.
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
	// Digest is the SHA-256 of the compiled policy in hexadecimal digits; "" when there is none.
	Digest string `json:"digest,omitempty"`
}

// String returns the type and the beginning of the digest: two policies may have the same type.
func (p Policy) String() string {
	const shown = 12
	if len(p.Digest) < shown {
		return strings.TrimSpace(p.Type + " (unknown)")
	}
	return fmt.Sprintf("%s (sha256 %s)", p.Type, p.Digest[:shown])
}

var policyFile = regexp.MustCompile(`^policy\.([0-9]{1,4})$`)
