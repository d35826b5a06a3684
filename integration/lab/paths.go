package lab

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// pathsDevice is the device of a disk with two paths, by the name that multipath-tools give the first one.
const pathsDevice = "/dev/mapper/mpatha"

// pathsImage returns the file of that disk.
func (q *qemu) pathsImage() string { return filepath.Join(q.host.dir, "paths.img") }

// makePaths moves what the file system that is mounted at tree has in /home to a disk of its own, and sets up
// multipath-tools for it. The two paths lead to it once the machine runs.
func makePaths(ctx context.Context, image, tree string) error {
	const script = `mke2fs -q -t ext4 -m 0 -d "$1/home" "$0" 64M
find "$1/home" -mindepth 1 -delete`
	if out, err := exec.CommandContext(ctx, "sh", "-ec", script, image, tree).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make a disk with two paths: %w\n%s", err, out)
	}
	return writeFile(filepath.Join(tree, "etc/multipath.conf"),
		"defaults {\n\tuser_friendly_names yes\n\tfind_multipaths yes\n}\n")
}

// pathsArgs returns the arguments of QEMU for one disk behind two controllers. Both show the same serial number and
// WWN, by which multipath-tools recognize the disk.
func pathsArgs(image string) []string {
	var args []string
	for _, path := range []string{"a", "b"} {
		args = append(args,
			"-device", "virtio-scsi-pci,id=controller-"+path,
			"-drive", fmt.Sprintf("if=none,id=path-%s,format=raw,cache=unsafe,file.locking=off,file=%s", path, image),
			"-device", fmt.Sprintf("scsi-hd,bus=controller-%s.0,drive=path-%s,serial=lab,wwn=0x5000c50015ea71ac,share-rw=on",
				path, path))
	}
	return args
}
