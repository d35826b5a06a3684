package mount

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Layers are what a writable overlay is made of. Each is the path of an attached directory, of less than 255 bytes.
type Layers struct {
	// Lower is what is seen and never written to. Upper and Work take what is written, on one file system.
	Lower, Upper, Work string
	// Source is the mount's source in /proc/self/mountinfo.
	Source string
	// Attrs are MOUNT_ATTR_ flags.
	Attrs int
}

// Overlay returns a writable overlay as a detached tree. Directories can be renamed in it, hard links stay together,
// and a change of owner or mode copies no content.
func Overlay(l Layers) (*Tree, error) {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot open an overlay: %w", err)
	}
	fs := os.NewFile(uintptr(fd), "overlay")
	defer fs.Close()
	for _, o := range [][2]string{
		{"source", l.Source}, {"lowerdir", l.Lower}, {"upperdir", l.Upper}, {"workdir", l.Work},
		{"redirect_dir", "on"}, {"metacopy", "on"}, {"index", "on"},
	} {
		if err := retry(func() error { return unix.FsconfigSetString(fd, o[0], o[1]) }); err != nil {
			return nil, fmt.Errorf("cannot set overlay option %s: %w%s", o[0], err, kernelSays(fd))
		}
	}
	return create(fs, l.Attrs)
}
