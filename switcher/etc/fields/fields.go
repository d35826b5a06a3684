// Package fields puts two changes of one path together: content, mode, owner, group and extended attributes apart. It
// promises that the result is never more open than what this host has.
package fields

import (
	"maps"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/accounts/table"
	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/merge3"
	"github.com/updatectl/updatectl/switcher/etc/paths"
	"github.com/updatectl/updatectl/switcher/etc/reserved"
)

// Joined is what becomes of a path that both the host and the image changed.
type Joined struct {
	FromImage bool          // whether the content is the image's; otherwise it is the host's
	Entry     listing.Entry // everything else
	Content   []byte        // the joined text; nil when the content is that of a side
	Conflict  string        // why not all of the image's changes are in it; "" when they are
}

// ChangedByBoth is the conflict of a path whose content both changed.
const ChangedByBoth = "changed here and by the image, differently; the local one is kept"

// All returns what becomes of the paths that are on all sides and were changed on both, differently.
func All(old, cur, next listing.Tree, oldText, curText, nextText map[string][]byte) map[string]Joined {
	joins := map[string]Joined{}
	for name, c := range cur {
		o, inO := old[name]
		x, inX := next[name]
		if !inO || !inX || listing.Same(c, o, true, true) || listing.Same(x, o, true, true) ||
			listing.Same(c, x, true, true) {
			continue
		}
		var text []byte
		ours, theirs := curText[name], nextText[name]
		if base, ok := oldText[name]; ok && ours != nil && theirs != nil && MergesByLine(name) {
			if merged, ok := merge3.Lines(base, ours, theirs); ok {
				text = merged
			}
		}
		joins[name] = join(o, c, x, text)
	}
	return joins
}

// join merges the fields of a path apart: content, mode, owner, group and extended attributes. What one side changed is
// in the result; what both changed differently is the host's. text is the joined content, nil if there is none.
//
// The result never opens what was not open: where the content was changed here, it may be a secret, and the image's
// looser mode or other owner is not for it. A set-id file is not put together from two sides.
func join(o, c, x listing.Entry, text []byte) Joined {
	if !joinable(o, c, x) {
		return Joined{Entry: c, Conflict: ChangedByBoth}
	}
	j := Joined{Entry: c}
	var refused []string
	content, fromImage, clean := pick(o.Content(), c.Content(), x.Content())
	if text != nil && (listing.Sum(text) == c.Sum || listing.Sum(text) == x.Sum) { // one side has the changes of both
		fromImage, clean = listing.Sum(text) == x.Sum, true
		if fromImage {
			content = x.Content()
		}
	}
	switch {
	case fromImage:
		j.FromImage, j.Entry.MTime = true, x.MTime
	case !clean && text != nil:
		j.Content, j.Entry.Sum = text, listing.Sum(text)
		if x.MTime.After(c.MTime) {
			j.Entry.MTime = x.MTime
		}
	case !clean:
		refused = append(refused, "content")
	}
	if j.Content == nil {
		j.Entry.Sum, j.Entry.Target, j.Entry.Rdev = content.Sum, content.Target, content.Rdev
	}
	j.Entry.Xattrs = map[string]string{}
	for _, attr := range everyAttr(o, c, x) {
		if attr == listing.Label || slices.Contains(aclXattrs, attr) {
			continue
		}
		value, _, clean := pick(attrOf(o, attr), attrOf(c, attr), attrOf(x, attr))
		if value.there {
			j.Entry.Xattrs[attr] = value.text
		}
		if !clean {
			refused = append(refused, attr)
		}
	}
	labelled := c // policies differ: the label comes with the content
	if fromImage {
		labelled = x
	}
	if label, ok := labelled.Xattrs[listing.Label]; ok {
		j.Entry.Xattrs[listing.Label] = label
	}
	refused = append(refused, j.joinAccess(o, c, x)...)
	if len(j.Entry.Xattrs) == 0 {
		j.Entry.Xattrs = nil
	}
	if slices.Contains(refused, "content") {
		j.Conflict = ChangedByBoth
	} else if len(refused) > 0 {
		j.Conflict = strings.Join(refused, ", ") + ": changed here and by the image, differently; kept as it is here"
	}
	return j
}

// joinAccess merges mode, owner and group, and returns those that the image changed and that are kept.
func (j *Joined) joinAccess(o, c, x listing.Entry) (refused []string) {
	// An access control list and the mode are one: the mode of the group is the mask of the list (acl(5)).
	access, fromImage, clean := pick(permissionsOf(o), permissionsOf(c), permissionsOf(x))
	uid, uidFromImage, uidClean := pick(o.UID, c.UID, x.UID)
	gid, gidFromImage, gidClean := pick(o.GID, c.GID, x.GID)
	if changed := o.Content() != c.Content(); changed {
		opens := access != permissionsOf(c) && (access.acl != permissionsOf(c).acl || access.mode&^c.Mode != 0)
		if fromImage && opens {
			access, clean = permissionsOf(c), false
		}
		if uidFromImage {
			uid, uidClean = c.UID, false
		}
		if gidFromImage {
			gid, gidClean = c.GID, false
		}
	}
	j.Entry.Mode, j.Entry.UID, j.Entry.GID = access.mode, uid, gid
	from := c
	if access == permissionsOf(x) {
		from = x
	}
	for _, attr := range aclXattrs {
		if value, ok := from.Xattrs[attr]; ok {
			j.Entry.Xattrs[attr] = value
		}
	}
	for _, field := range []struct {
		name  string
		clean bool
	}{{"mode", clean}, {"owner", uidClean}, {"group", gidClean}} {
		if !field.clean {
			refused = append(refused, field.name)
		}
	}
	return refused
}

// joinable reports whether the fields of three versions may be put together.
func joinable(o, c, x listing.Entry) bool {
	const setID = 0o6000
	if o.Kind != c.Kind || c.Kind != x.Kind || o.Flags != c.Flags { // who protects a file does not want it changed
		return false
	}
	if c.Kind != listing.Dir && (c.Mode|x.Mode)&setID != 0 {
		return false
	}
	// Capabilities and signatures are for one content.
	for _, attr := range everyAttr(o, c, x) {
		if strings.HasPrefix(attr, "security.") && attr != listing.Label &&
			(attrOf(o, attr) != attrOf(c, attr) || attrOf(c, attr) != attrOf(x, attr)) {
			return false
		}
	}
	return true
}

// pick merges one field: the value, whether it is a change of the image, and whether nothing was lost.
func pick[T comparable](o, c, x T) (value T, fromImage, clean bool) {
	switch {
	case c == x || x == o:
		return c, false, true
	case c == o:
		return x, true, true
	}
	return c, false, false
}

var aclXattrs = []string{"system.posix_acl_access", "system.posix_acl_default"}

// permissions are who may do what with a file, besides its owners.
type permissions struct {
	mode uint32
	acl  [2]attr
}

func permissionsOf(e listing.Entry) permissions {
	a := permissions{acl: [2]attr{attrOf(e, aclXattrs[0]), attrOf(e, aclXattrs[1])}}
	if e.Kind != listing.Link { // the mode of a symbolic link means nothing
		a.mode = e.Mode
	}
	return a
}

// attr is an extended attribute that may be missing.
type attr struct {
	text  string
	there bool
}

func attrOf(e listing.Entry, name string) attr {
	text, ok := e.Xattrs[name]
	return attr{text, ok}
}

func everyAttr(sides ...listing.Entry) []string {
	names := map[string]bool{}
	for _, side := range sides {
		for name := range side.Xattrs {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// notByLine lists what is never joined by lines, though it is text: half of one version and half of another could let
// somebody in, keep everybody out or cut the host off; or both halves are only valid together.
var notByLine = paths.List{
	// They have rules of their own.
	"fstab", "crypttab", "ca-certificates.conf",
	// Who may log in, from where, and with which rights.
	"sudoers", "sudoers.d", "doas.conf", "polkit-1", "pam.d", "security", "authselect", "nsswitch.conf", "login.defs",
	"ssh", "sssd", "krb5.conf", "krb5.conf.d", "ldap", "nslcd.conf", "hosts.allow", "hosts.deny", "shells", "securetty",
	"cron.allow", "cron.deny", "at.allow", "at.deny", "selinux", "apparmor", "apparmor.d",
	"nftables.conf", "nftables", "ufw", "default/ufw", "firewalld", "iptables", "sysconfig/iptables",
	"sysconfig/ip6tables", "sysconfig/nftables.conf",
	// The network.
	"network", "netplan", "systemd/network", "systemd/networkd.conf", "systemd/networkd.conf.d", "systemd/resolved.conf",
	"systemd/resolved.conf.d", "NetworkManager", "sysconfig/network", "sysconfig/network-scripts", "dhcpcd.conf",
	"wpa_supplicant", "wireguard", "resolv.conf", "hosts",
	// Keys, certificates, and which images this host accepts.
	"ssl", "pki", "ca-certificates", "apt/trusted.gpg.d", "apt/keyrings", "containers/policy.json", "updatectl",
}

// MergesByLine reports whether two changes of a file may be joined by lines.
func MergesByLine(name string) bool {
	return !notByLine.Has(name) && !reserved.Has(name) && !slices.Contains(table.Files, name)
}
