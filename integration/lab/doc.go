// Package lab builds real Debian roots and boots real hosts from them, and leaves the machine it runs on as it was.
//
// Everything that lives (hosts, registries, the test itself) runs inside an enclosure: the process re-executed by
// [Enter] as the first process of its own pid, mount, network, IPC and cgroup namespaces. Nothing has to be tidied up
// by hand, because the kernel does it: when the outer process dies, by whatever signal, the enclosure's first process is
// killed with it, with that process every other one in its pid namespace, and with them the mounts, the loop devices
// (they clear themselves), the veth pairs and the addresses. What is left, files below the cache directory and empty
// cgroups, belongs to a run whose lock nobody holds any more, and the next run sweeps it.
//
// The enclosure has no way to the outside network. What has to be downloaded is fetched by the prepare function given
// to [Enter], which runs before, on the machine itself.
//
// A host is run in one of two ways. In a container (systemd-nspawn) it is fast, and has the kernel of the machine that runs
// the lab, without modules or live patches. In a machine (QEMU) it has the kernel of its own tree and a disk with
// fs-verity; everything takes ten times as long, because it is emulated. Both are a [Host] and do the same; commands in a
// machine go over serial ports, see package guest, so that they need neither network nor login.
//
// Facts about systemd that this package rests on:
//   - systemd-nspawn wants to see a booted systemd: /run/systemd must exist. The enclosure has its own tmpfs on /run, so
//     the machine's PID 1, D-Bus and their sockets are not only spared but out of reach.
//   - Where PID 1 is not systemd, or cgroups are hybrid, nspawn has to be told: --register=no --keep-unit, a plain
//     cgroup2 mount on /sys/fs/cgroup, and SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1.
//   - A soft reboot changes neither the boot id nor the pid of the container's PID 1, but it changes its root: whoever
//     enters the container must do so through /proc/PID/root at that moment.
//   - SoftRebootsCount of PID 1 tells soft reboots apart (systemd 256), the boot id full ones.
package lab
