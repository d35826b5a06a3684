// Package bootloader answers which kernel the next full reboot starts, and how that is changed. It promises that the
// entries of the host's distribution and the default that the operator chose stay as they are: an entry of updatectl is
// started once, or by default, only as long as the boot loader is told so, and without it the host's own kernel starts.
package bootloader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"

	"github.com/updatectl/updatectl/durable"
)

// Tree is the host root, writable, see package hostroot.
type Tree interface {
	// Path returns where a file of the host root lies for this process.
	Path(p string) string
	// Run runs a program in the host root, and returns the end of its output.
	Run(ctx context.Context, variables []string, args ...string) (output string, err error)
}

// Entry is a kernel in the menu of the boot loader.
type Entry struct {
	// ID is its name, of the letters a-z and digits.
	ID string
	// Title is for people, Release is uname -r.
	Title, Release string
	// Options is added to what the host has on its kernel command line, besides [Word].
	Options []string
}

// Word returns the parameter by which a running kernel shows which entry it was started by.
func Word(id string) string { return "updatectl.kernel=" + id }

// onceWords are on the command line only if an entry is started once: a kernel that panics, or does not find its disk,
// does not wait for a person. The first is read by the kernel and by initramfs-tools, the next two by dracut. The
// fourth has a systemd that crashes reboot and not freeze. The last is for updatectl-kernel.timer, on the host root.
var onceWords = []string{"panic=30", "rd.shell=0", "rd.emergency=reboot", "systemd.crash_reboot=1", "updatectl.once"}

// The files of an entry, in its directory.
const (
	Kernel = "vmlinuz"
	Initrd = "initrd"
)

// Loader is the boot loader of a host.
type Loader interface {
	// Name is what people call it.
	Name() string
	// CanStartOnce returns an [ErrUnsupported] if it cannot start an entry once, and the one before after that.
	CanStartOnce(context.Context) error
	// Dir returns the directory in the host root for the kernel and the initrd of an entry.
	Dir(id string) string
	// Add adds an entry, whose files are in its directory. What the next full reboot starts does not change.
	Add(context.Context, Entry) error
	// Remove removes an entry with its files. It is no error if there is none.
	Remove(ctx context.Context, id string) error
	// StartOnce has the next full reboot start an entry, and those after it not; "" takes that back. The error says that
	// the entry is not complete.
	StartOnce(ctx context.Context, id string) error
	// SetDefault has every full reboot start an entry; "" has them start what the host itself starts.
	SetDefault(ctx context.Context, id string) error
}

// ErrUnsupported means that updatectl cannot have the boot loader of this host start another kernel.
var ErrUnsupported = errors.New("the boot loader cannot start the kernel of an image")

// ErrContainer means that this host is a container: it has no kernel of its own.
var ErrContainer = errors.New("this host is a container, which has the kernel of the machine that runs it")

// IsContainer reports whether this host is a container.
func IsContainer() bool {
	_, err := os.Stat("/run/systemd/container") // https://systemd.io/CONTAINER_INTERFACE/
	return err == nil
}

// Find returns the boot loader of a host, or an [ErrUnsupported].
func Find(ctx context.Context, t Tree) (Loader, error) {
	if isSystemdBoot() {
		return findSystemdBoot(ctx, t)
	}
	if g, ok := findGRUB(t); ok {
		return g, nil
	}
	return nil, fmt.Errorf("%w: neither GRUB, as Debian and Ubuntu install it, nor systemd-boot was found",
		ErrUnsupported)
}

// prefix begins the names that updatectl has in the menu.
const prefix = "updatectl-"

// name returns the name of an entry in the menu, "" for "".
func name(id string) string {
	if id == "" {
		return ""
	}
	return prefix + id
}

// place is the directory of entries, in that of a boot loader.
const place = "updatectl"

// plain is an option that boot loaders, their configuration and the kernel read alike: without blanks and quotes, and
// without what GRUB takes for its own or for a comment.
var plain = regexp.MustCompile(`^[A-Za-z0-9_.,:=/+@%~!^-][A-Za-z0-9_.,:=/+@%~!#^-]*$`)

// isSecure reports whether the firmware starts only what is signed.
func isSecure() bool {
	const longest = 64
	raw, err := durable.ReadRegular(efiVars+"/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", longest)
	return err == nil && len(raw) > efiAttributes && raw[efiAttributes] == 1
}

// errSecure is why nothing is started once where the firmware checks signatures: a boot loader that refuses a kernel
// waits for a person.
var errSecure = fmt.Errorf("%w: Secure Boot is on, and whether this host's boot loader accepts the kernel of an image "+
	"is not known before it starts", ErrUnsupported)

// complete returns why an entry cannot be started, nil if its files are there.
func complete(t Tree, dir string) error {
	for _, name := range []string{Kernel, Initrd} {
		if st, err := os.Stat(t.Path(filepath.Join(dir, name))); err != nil || st.Size() == 0 {
			return fmt.Errorf("%s of the host root is not complete: %w", dir, errors.Join(err, fs.ErrNotExist))
		}
	}
	return nil
}

// line returns a text of an image or a host as part of one line of a configuration.
func line(text string) string {
	return strings.Join(strings.FieldsFunc(text, unicode.IsControl), " ")
}

// Usable returns why a release or parameters cannot be part of an entry, nil if they can.
func Usable(release string, options []string) error {
	if !plainRelease.MatchString(release) {
		return fmt.Errorf("the release of the kernel, %q, is not a valid one", release)
	}
	_, err := written(options)
	return err
}

// plainRelease is a release of a kernel as distributions write it.
var plainRelease = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._+~-]*$`)

// written returns options as they are written on a kernel command line. The error names one that boot loaders would
// read in other ways.
func written(options []string) (string, error) {
	for _, o := range options {
		if o == "--" || !plain.MatchString(o) { // the kernel reads nothing after --
			return "", fmt.Errorf("the kernel parameter %q has characters that are special to boot loaders", o)
		}
	}
	return strings.Join(options, " "), nil
}

// dirOf returns the directory of an entry below that of a boot loader.
func dirOf(boot, id string) string { return filepath.Join(boot, place, id) }
