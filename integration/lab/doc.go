// Package lab builds real Debian roots and boots real hosts from them, and leaves the machine it runs on as it was.
//
// Everything that lives (hosts, registries, the test itself) runs inside an enclosure: the process that [Enter]
// executes again as the first process of its own pid, mount, network, IPC and cgroup namespaces. The kernel tidies up:
// when the outer process dies, by whatever signal, the first process of the enclosure is killed with it, and then
// every process in its pid namespace, the mounts, the loop devices (they clear themselves), the veth pairs and the
// addresses. What remains, files below the cache directory and empty cgroups, belongs to a run whose lock nobody
// holds; the next run removes it.
//
// The enclosure cannot reach the outside network. What has to be downloaded is fetched by the function that [Enter]
// calls before, on the machine itself: see [Prepare].
//
// A host runs in one of two ways. A container (systemd-nspawn) is fast, and has the kernel of the machine that runs
// the lab, without modules or live patches. A machine (QEMU) has the kernel of its own tree and a disk with fs-verity;
// it is emulated, and takes ten times as long. Both are a [Host] and behave the same. Commands reach a machine over
// serial ports, see package guest, so that they need neither network nor login.
//
// Facts about systemd that this package relies on:
//   - systemd-nspawn refuses to run where /run/systemd does not exist. The enclosure has its own tmpfs on /run, which
//     also keeps the PID 1 and the D-Bus of the machine out of reach.
//   - Where PID 1 is not systemd, or cgroups are hybrid, nspawn needs --register=no --keep-unit, a plain cgroup2 mount
//     on /sys/fs/cgroup, and SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1.
//   - A soft reboot changes neither the boot id nor the pid of the container's PID 1, but it changes its root: whoever
//     enters the container must go through /proc/PID/root as it is at that moment.
//   - SoftRebootsCount of PID 1 (systemd 256) counts soft reboots; the boot id changes with full ones.
package lab
