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

# GRUB goes on to the fallback if it cannot read an entry. The words of the one start are for that start only.
cat <<'END'
set updatectl_words=
if [ -z "${default}" ]; then
	set default=0
fi
if [ "${boot_once}" = true ]; then
	set updatectl_once=
	save_env updatectl_once
else
	if [ -n "${updatectl_default}" ]; then
		set fallback="${default}"
		set default="${updatectl_default}"
	fi
	if [ -n "${updatectl_once}" ]; then
		set updatectl_next="${updatectl_once}"
		set updatectl_once=
		if save_env updatectl_once; then
			set fallback="${default}"
			set default="${updatectl_next}"
END
echo "			set updatectl_words='panic=30 rd.shell=0 rd.emergency=reboot systemd.crash_reboot=1 updatectl.once'"
cat <<'END'
		fi
	fi
fi
export updatectl_words
END

# The root file system, found as it is for the host's own kernels. A snapshot of LVM has the UUID of its origin.
root="$GRUB_DEVICE"
if [ -n "$GRUB_DEVICE_UUID" ] && [ "$GRUB_DISABLE_LINUX_UUID" != true ] &&
	[ -e "/dev/disk/by-uuid/$GRUB_DEVICE_UUID" ] && ! uses_abstraction "$GRUB_DEVICE" lvm; then
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
	load_video
	insmod gzio
$prepare
	linux $boot/$id/vmlinuz root=$root ro $flags $GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT $(head -n 1 "${dir}options") \${updatectl_words}
	initrd $boot/$id/initrd
}
END
done
