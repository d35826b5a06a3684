#!/bin/sh
# The kernels of images, for updatectl. It has written this file, and writes it again.
#
# Each directory of /boot/updatectl has the kernel of an image. Which one starts is in two variables of grubenv: one
# counts once, the other until it is removed. Without them, the host's own default starts. A kernel is started once only
# if the variable could be removed before: otherwise it would start again and again.
set -e

. "$pkgdatadir/grub-mkconfig_lib"

found=
for dir in /boot/updatectl/*/; do
	if [ -s "${dir}title" ] && [ -s "${dir}vmlinuz" ] && [ -s "${dir}initrd" ]; then
		found=yes
	fi
done
[ -n "$found" ] || exit 0

cat <<'END'
if [ "${boot_once}" != true ]; then
	if [ -n "${updatectl_default}" ]; then
		set default="${updatectl_default}"
	fi
	if [ -n "${updatectl_once}" ]; then
		set updatectl_next="${updatectl_once}"
		set updatectl_once=
		if save_env updatectl_once; then
			set default="${updatectl_next}"
		fi
	fi
fi
END

# The root file system as GRUB's own script for Linux names it.
root="$GRUB_DEVICE"
if [ -n "$GRUB_DEVICE_UUID" ] && [ "$GRUB_DISABLE_LINUX_UUID" != true ] &&
	[ -e "/dev/disk/by-uuid/$GRUB_DEVICE_UUID" ]; then
	root="UUID=$GRUB_DEVICE_UUID"
fi
flags=
if [ "$(stat -f -c %T /)" = btrfs ]; then
	subvolume=$(make_system_path_relative_to_its_root /)
	subvolume=${subvolume#/}
	flags=${subvolume:+"rootflags=subvol=$subvolume"}
fi
boot=$(make_system_path_relative_to_its_root /boot/updatectl)
boot=${boot%/}
prepare=$(prepare_grub_to_access_device "$GRUB_DEVICE_BOOT" | grub_add_tab)

for dir in /boot/updatectl/*/; do
	[ -s "${dir}title" ] && [ -s "${dir}vmlinuz" ] && [ -s "${dir}initrd" ] || continue
	id=$(basename "$dir")
	title=$(head -n 1 "${dir}title" | tr -d "'\"\\\\")
	cat <<END
menuentry '$title' --class gnu-linux --class os --unrestricted --id updatectl-$id {
	insmod gzio
$prepare
	linux $boot/$id/vmlinuz root=$root ro $flags $GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT $(head -n 1 "${dir}options")
	initrd $boot/$id/initrd
}
END
done
