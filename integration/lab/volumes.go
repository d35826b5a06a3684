package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// volumeGroup is the volume group of a host on logical volumes.
const volumeGroup = "lab"

// A volume is a logical volume.
type volume struct {
	name string
	size int64 // in MiB
}

// volumes are its logical volumes, in their order on the disk. The first has the size of the disk of other hosts.
var volumes = []volume{
	{"root", diskSize >> 20},
	{"var", 6 << 10},
	{"home", 256},
}

// volumeDevice returns the device of a logical volume.
func volumeDevice(name string) string { return "/dev/mapper/" + volumeGroup + "-" + name }

// volumesStart is where the first logical volume begins in its group, in MiB.
const volumesStart = 1

// makeVolumes turns the disk whose file system is mounted at tree into one with a volume group that begins at start,
// in MiB: what the file system has in directories with volumes of their own moves there. It unmounts the tree. The
// machine that runs the lab needs no device mapper: LVM writes its metadata without one, and the volumes of a new group
// lie one behind the other.
func makeVolumes(ctx context.Context, image, tree string, start int, made []volume) error {
	const script = `image=$0 tree=$1 group=$2 start=$3; shift 3
truncate -s 16G "$image.new"
loop=$(losetup -f --show --offset $((start << 20)) --sizelimit 15G "$image.new")
trap 'losetup -d "$loop"' EXIT
mount --bind /dev "$tree/dev"
mount -t proc proc "$tree/proc"
mount -t tmpfs tmpfs "$tree/run"
lvm() {
	chroot "$tree" lvm "$@" --devices "$loop" --config \
		'global{activation=0 use_lvmpolld=0} devices{obtain_device_list_from_udev=0} activation{udev_sync=0 udev_rules=0}'
}
lvm pvcreate -q --dataalignment 1m "$loop"
lvm vgcreate -q -s 4m "$group" "$loop"
at=1
parts=
while [ $# -gt 0 ]; do
	lvm lvcreate -q -an -Zn -Wn -y -L "$2m" -n "$1" "$group"
	[ "$1" = root ] || parts="$parts $1:$at:$2"
	at=$((at + $2)); shift 2
done
umount "$tree/run" "$tree/proc" "$tree/dev"
for part in $parts; do
	IFS=: read -r name at size <<END
$part
END
	mke2fs -q -F -t ext4 -O verity -m 0 -E offset=$(((start + at) << 20)) -d "$tree/$name" "$image.new" "${size}M"
	find "$tree/$name" -mindepth 1 -delete
done`
	args := []string{"-ec", script, image, tree, volumeGroup, fmt.Sprint(start)}
	for _, v := range made {
		args = append(args, v.name, fmt.Sprint(v.size))
	}
	cmd := exec.CommandContext(ctx, "sh", args...)
	cmd.Env = append(os.Environ(), "LVM_SUPPRESS_FD_WARNINGS=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make logical volumes: %w\n%s", err, out)
	}
	if err := unmountDisk(ctx, image, tree); err != nil {
		return err
	}
	return moveInto(ctx, image, start+1)
}

// MakeSwap makes a small swap file.
func MakeSwap(path string) error {
	const script = `dd if=/dev/zero of="$0" bs=1M count=8 status=none; chmod 600 "$0"; mkswap -q "$0"`
	if out, err := exec.Command("sh", "-ec", script, path).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make a swap file: %w\n%s", err, out)
	}
	return nil
}
