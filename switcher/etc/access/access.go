// Package access reads from the tree of a host who uses it. Package accounts decides by that who stays.
package access

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/switcher/etc/accounts"
	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/sshd"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// People returns the numbers of people by the login.defs in an /etc.
func People(dir string) (accounts.People, error) {
	text, err := listing.ReadText(dir, "login.defs", rootfs.MaxConfig)
	return accounts.ParseLoginDefs(text), err
}

// spoolDirs are the directories in which a file bears the name of the user who owns it: crontabs of Debian and Fedora,
// mail, and users whose services run without a session.
var spoolDirs = []string{
	"/var/spool/cron/crontabs", "/var/spool/cron", "/var/mail", "/var/spool/mail", "/var/lib/systemd/linger",
}

// Read reads who uses a host from its tree; tables are its user databases. What cannot be read counts as absent:
// at this moment of a switch, a network file system may be gone, and the switch must not fail for it.
func Read(tree string, tables table.Tables) (a accounts.Access) {
	host := rootfs.Dir(tree)
	for _, file := range sudoers(host) {
		text, _ := host.ReadFile(file, rootfs.MaxConfig)
		named := accounts.ParseSudoers(text)
		a.Sudo.Users = append(a.Sudo.Users, named.Users...)
		a.Sudo.Groups = append(a.Sudo.Groups, named.Groups...)
	}
	for _, dir := range spoolDirs {
		a.Spools = append(a.Spools, host.Names(dir)...)
	}
	a.Homes = homeOwners(host)
	patterns := sshd.Read(host).KeyFiles()
	for _, login := range accounts.Logins(tables) {
		if slices.ContainsFunc(patterns, func(p string) bool { return hasKeys(host, login, p) }) {
			a.Keys = append(a.Keys, login.Name)
		}
	}
	return a
}

// sudoers returns the files that sudo reads. It skips names with a dot and those that end in "~".
func sudoers(host rootfs.Dir) []string {
	files := []string{"/etc/sudoers"}
	for _, name := range host.Names("/etc/sudoers.d") {
		if !strings.Contains(name, ".") && !strings.HasSuffix(name, "~") {
			files = append(files, path.Join("/etc/sudoers.d", name))
		}
	}
	return files
}

// homeOwners returns the users who own a directory in /home. It neither mounts a file system nor waits for one.
func homeOwners(host rootfs.Dir) []uint32 {
	home, err := host.OpenDir("/home")
	if err != nil {
		return nil
	}
	defer home.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(home.Fd()), &fs); err != nil || fs.Type == unix.AUTOFS_SUPER_MAGIC {
		return nil
	}
	const flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
	var owners []uint32
	for _, name := range host.Names("/home") {
		var st unix.Statx_t
		err := unix.Statx(int(home.Fd()), name, flags, unix.STATX_TYPE|unix.STATX_UID, &st)
		if err == nil && uint32(st.Mode)&unix.S_IFMT == unix.S_IFDIR && st.Uid != 0 {
			owners = append(owners, st.Uid)
		}
	}
	return owners
}

// hasKeys reports whether a user has keys in the file that a pattern of AuthorizedKeysFile stands for. Users with a
// home below /home need none: they stay anyway, and /home may be on a network file system.
func hasKeys(host rootfs.Dir, login accounts.Login, pattern string) bool {
	file := strings.NewReplacer(
		"%%", "%", "%h", login.Home, "%u", login.Name, "%U", strconv.FormatUint(uint64(login.Number), 10),
	).Replace(pattern)
	if !strings.HasPrefix(file, "/") {
		file = path.Join("/", login.Home, file)
	}
	if strings.HasPrefix(file, "/home/") {
		return false
	}
	text, _ := host.ReadFile(file, rootfs.MaxConfig)
	return len(text) > 0
}
