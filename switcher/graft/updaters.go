package graft

import (
	"path/filepath"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// updaterTimers are the timers of package managers. In an image root, what they start would fail, or fill /var with
// packages that nobody installs.
var updaterTimers = []string{
	"apt-daily.timer", "apt-daily-upgrade.timer", "dnf-automatic.timer", "dnf-automatic-download.timer",
	"dnf-automatic-install.timer", "dnf-automatic-notifyonly.timer", "dnf5-automatic.timer", "dnf-makecache.timer",
}

// notInImages keeps a timer from running where /usr is read-only. Where it is writable, nothing changes.
const notInImages = "# Written by updatectl: the packages of an image root come with the image.\n" +
	"[Unit]\nConditionPathIsReadWrite=/usr\n"

// aptProgram is apt's program that changes packages; aptHook is what is said to it, aptRule what leads it there: apt
// reads its configuration from /etc only.
const (
	aptProgram = "/usr/bin/apt-get"
	aptHook    = "/usr/share/updatectl/apt.conf"
	aptRule    = "/usr/lib/tmpfiles.d/updatectl-apt.conf"
)

const aptRuleText = "# apt says where updates of an image root come from.\n" +
	"L /etc/apt/apt.conf.d/00updatectl - - - - " + aptHook + "\n"

// aptHookText makes apt fail where /usr is read-only: before it calls dpkg, by when it has downloaded the packages; and
// when it fetches lists of packages, which it does all the same.
const aptHookText = `// Written by updatectl. Where /usr is writable, this does nothing.
APT::Update::Pre-Invoke { "` + aptRefusal + `"; };
DPkg::Pre-Invoke { "` + aptRefusal + `"; };
`

const aptRefusal = "test -w /usr || { echo 'updatectl: the packages of this root come with its image: " +
	"see updatectl status' >&2; exit 1; }"

// updaters keeps the package managers of the image from trying what cannot work in a read-only root.
func (b builder) updaters() error {
	files := map[string]string{}
	for _, timer := range updaterTimers {
		if unit := filepath.Join(switcher.UnitDir, timer); rootfs.Exists(filepath.Join(b.image, unit)) {
			files[unit+".d/updatectl.conf"] = notInImages
		}
	}
	if rootfs.Exists(filepath.Join(b.image, aptProgram)) {
		files[aptHook], files[aptRule] = aptHookText, aptRuleText
	}
	return b.files("/", files)
}
