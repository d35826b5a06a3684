package lab

import (
	"context"
	"fmt"
	"os/exec"
)

// Btrfs installs what a host with /var on btrfs needs on the machine that runs the lab.
func Btrfs(ctx context.Context) (string, error) { return "", EnsurePackages(ctx, "btrfs-progs") }

// btrfsLine is the line of fstab for /var on btrfs. Files that are written from now on have no checksum of btrfs, as
// databases and images of machines often have none there: fs-verity alone finds what is wrong in them.
const btrfsLine = "/dev/vdb /var btrfs nodatasum 0 0\n"

func (q *qemu) btrfsImage() string { return q.host.image + ".btrfs" }

// makeBtrfs moves what is in a directory to a btrfs file system of its own. The machine that runs the lab needs no
// btrfs in its kernel. The files get checksums of btrfs, whatever fstab says.
func makeBtrfs(ctx context.Context, image, dir string) error {
	const script = `truncate -s 3G "$0"
mkfs.btrfs -q -m single -d single --rootdir "$1" "$0"
find "$1" -mindepth 1 -delete`
	if out, err := exec.CommandContext(ctx, "sh", "-ec", script, image, dir).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make a btrfs: %w\n%s", err, out)
	}
	return nil
}
