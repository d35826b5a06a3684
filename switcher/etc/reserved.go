package etc

import (
	"path"
	"strings"
)

// A file beside another one is named so that nothing loads it:
//
//   - The dot in front hides it from globs (nginx, ifupdown's source), from Fedora's cron, ufw, kubelet, apt and the
//     checks of updatectl.
//   - A dot anywhere is enough for sudo, run-parts and Debian's cron.
//   - systemd, sysctl.d, modprobe.d, profile.d, sshd and most conf.d read files with another suffix only.
//   - logrotate and dnsmasq, which read hidden files, too, skip the suffixes that dpkg gives to versions of a file.
const (
	besidePrefix = "."
	imageSuffix  = ".image.dpkg-new" // the image's version of a file in conflict
	maxName      = 255               // bytes, NAME_MAX
)

// besideOf returns the path of the image's version of a file in conflict.
func besideOf(name string) string {
	return path.Join(path.Dir(name), besidePrefix+path.Base(name)+imageSuffix)
}

// besideWhat returns the path that a file is the image's version of, "" if it is none.
func besideWhat(name string) string {
	base, ok := strings.CutSuffix(path.Base(name), imageSuffix)
	if base, dot := strings.CutPrefix(base, besidePrefix); ok && dot && base != "" {
		return path.Join(path.Dir(name), base)
	}
	return ""
}

// identity is what tells this host from others. An image that brings some of it (many builds leave SSH host keys in it)
// must not change it.
var identity = adoptList{
	"machine-id", "hostid", "ssh/ssh_host_*", "iscsi/initiatorname.iscsi", "nvme/hostid", "nvme/hostnqn",
}

// ofImage is what describes the image: a loader cache or time stamp of another image would be wrong for this one.
var ofImage = adoptList{"os-release", "ld.so.cache", ".updated"}

// backups are copies of the user databases that passwd(1) and the like write. Either side's will do.
var backups = adoptList{"passwd-", "group-", "shadow-", "gshadow-", "subuid-", "subgid-"}

// toDerive lists the rules of what has to be made anew in this root, by name. It is there until that is done.
const toDerive = ".updatectl-derive"

// mergedList is the file that lists the merged paths of this /etc, one on each line.
const mergedList = ".updatectl-merged"

// notes are files that a merge leaves for later, and that are no part of any side.
var notes = adoptList{toDerive, mergedList}
