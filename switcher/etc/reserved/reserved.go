// Package reserved names the paths in /etc that a merge treats otherwise than all others: what is always the host's,
// what is always the image's, and the files that a merge leaves behind for later.
package reserved

import (
	"path"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/paths"
)

// A file beside another one is named so that nothing loads it:
//
//   - The dot in front hides it from globs (nginx, ifupdown's source), from Fedora's cron, ufw, kubelet, apt and the
//     checks of updatectl.
//   - A dot anywhere is enough for sudo, run-parts and Debian's cron.
//   - systemd, sysctl.d, modprobe.d, profile.d, sshd and most conf.d read files with another suffix only.
//   - logrotate and dnsmasq, which read hidden files, too, skip the suffixes that dpkg gives to versions of a file.
const (
	Hidden      = "."               // begins the name of every such file
	imageSuffix = ".image.dpkg-new" // the image's version of a file in conflict
)

// Beside returns the path of the image's version of a file in conflict.
func Beside(name string) string {
	return path.Join(path.Dir(name), Hidden+path.Base(name)+imageSuffix)
}

// Original returns the path that a file is the image's version of, "" if it is none.
func Original(name string) string {
	base, ok := strings.CutSuffix(path.Base(name), imageSuffix)
	if base, dot := strings.CutPrefix(base, Hidden); ok && dot && base != "" {
		return path.Join(path.Dir(name), base)
	}
	return ""
}

// Identity is what tells this host from others. An image that brings some of it (many builds leave SSH host keys in it)
// must not change it.
var Identity = paths.List{
	"machine-id", "hostid", "ssh/ssh_host_*", "iscsi/initiatorname.iscsi", "nvme/hostid", "nvme/hostnqn",
}

// OfImage is what describes the image: a loader cache or time stamp of another image would be wrong for this one.
var OfImage = paths.List{"os-release", "ld.so.cache", ".updated"}

// Backups are copies of the user databases that passwd(1) and the like write. Either side's will do.
var Backups = paths.List{"passwd-", "group-", "shadow-", "gshadow-", "subuid-", "subgid-"}

// Has reports whether a path is the host's, the image's or either's as a whole.
func Has(name string) bool { return Identity.Has(name) || OfImage.Has(name) || Backups.Has(name) }

// ToDerive lists the rules of what has to be made anew in this root, by name. It is there until that is done.
const ToDerive = ".updatectl-derive"

// MergedList is the file that lists the merged paths of this /etc, one on each line.
const MergedList = ".updatectl-merged"

// Notes are files that a merge leaves for later, and that are no part of any side.
var Notes = paths.List{ToDerive, MergedList}
