package etc

import (
	"maps"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/accounts"
	"github.com/updatectl/updatectl/switcher/etc/merge3"
)

// joined is what becomes of a path that both the host and the image changed.
type joined struct {
	side     side   // where the content comes from
	entry    entry  // everything else
	content  []byte // the joined text; nil when the content is that of the side
	conflict string // why not all of the image's changes are in it; "" when they are
}

// wholeSide reports whether a result with the content of one side has everything else from there, too.
func wholeSide(s side, e, c, x entry) bool {
	return s == current && same(e, c, true, true) || s == image && same(e, x, true, true)
}

const changedByBoth = "changed here and by the image, differently; the local one is kept"

// joinAll returns what becomes of the paths that are on all sides and were changed on both, differently.
func joinAll(old, cur, next listing, oldText, curText, nextText map[string][]byte) map[string]joined {
	joins := map[string]joined{}
	for name, c := range cur {
		o, inO := old[name]
		x, inX := next[name]
		if !inO || !inX || same(c, o, true, true) || same(x, o, true, true) || same(c, x, true, true) {
			continue
		}
		var text []byte
		ours, theirs := curText[name], nextText[name]
		if base, ok := oldText[name]; ok && ours != nil && theirs != nil && mergesByLine(name) {
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
func join(o, c, x entry, text []byte) joined {
	if !joinable(o, c, x) {
		return joined{current, c, nil, changedByBoth}
	}
	j := joined{side: current, entry: c}
	var refused []string
	content, fromImage, clean := pick(o.contentOf(), c.contentOf(), x.contentOf())
	if text != nil && (sumOf(text) == c.sum || sumOf(text) == x.sum) { // one side has the changes of both
		fromImage, clean = sumOf(text) == x.sum, true
		if fromImage {
			content = x.contentOf()
		}
	}
	switch {
	case fromImage:
		j.side, j.entry.mtime = image, x.mtime
	case !clean && text != nil:
		j.content, j.entry.sum = text, sumOf(text)
		if x.mtime.After(c.mtime) {
			j.entry.mtime = x.mtime
		}
	case !clean:
		refused = append(refused, "content")
	}
	if j.content == nil {
		j.entry.sum, j.entry.target, j.entry.rdev = content.sum, content.target, content.rdev
	}
	j.entry.xattrs = map[string]string{}
	for _, attr := range everyAttr(o, c, x) {
		if attr == labelXattr || slices.Contains(aclXattrs, attr) {
			continue
		}
		value, _, clean := pick(attrOf(o, attr), attrOf(c, attr), attrOf(x, attr))
		if value.there {
			j.entry.xattrs[attr] = value.text
		}
		if !clean {
			refused = append(refused, attr)
		}
	}
	labelled := c // policies differ: the label comes with the content
	if fromImage {
		labelled = x
	}
	if label, ok := labelled.xattrs[labelXattr]; ok {
		j.entry.xattrs[labelXattr] = label
	}
	refused = append(refused, j.joinAccess(o, c, x)...)
	if len(j.entry.xattrs) == 0 {
		j.entry.xattrs = nil
	}
	if slices.Contains(refused, "content") {
		j.conflict = changedByBoth
	} else if len(refused) > 0 {
		j.conflict = strings.Join(refused, ", ") + ": changed here and by the image, differently; kept as it is here"
	}
	return j
}

// joinAccess merges mode, owner and group, and returns those that the image changed and that are kept.
func (j *joined) joinAccess(o, c, x entry) (refused []string) {
	// An access control list and the mode are one: the mode of the group is the mask of the list (acl(5)).
	access, fromImage, clean := pick(o.accessOf(), c.accessOf(), x.accessOf())
	uid, uidFromImage, uidClean := pick(o.uid, c.uid, x.uid)
	gid, gidFromImage, gidClean := pick(o.gid, c.gid, x.gid)
	if changed := o.contentOf() != c.contentOf(); changed {
		opens := access != c.accessOf() && (access.acl != c.accessOf().acl || access.mode&^c.mode != 0)
		if fromImage && opens {
			access, clean = c.accessOf(), false
		}
		if uidFromImage {
			uid, uidClean = c.uid, false
		}
		if gidFromImage {
			gid, gidClean = c.gid, false
		}
	}
	j.entry.mode, j.entry.uid, j.entry.gid = access.mode, uid, gid
	from := c
	if access == x.accessOf() {
		from = x
	}
	for _, attr := range aclXattrs {
		if value, ok := from.xattrs[attr]; ok {
			j.entry.xattrs[attr] = value
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
func joinable(o, c, x entry) bool {
	const setID = 0o6000
	if o.kind != c.kind || c.kind != x.kind || o.flags != c.flags { // who protects a file does not want it changed
		return false
	}
	if c.kind != kindDir && (c.mode|x.mode)&setID != 0 {
		return false
	}
	// Capabilities and signatures are for one content.
	for _, attr := range everyAttr(o, c, x) {
		if strings.HasPrefix(attr, "security.") && attr != labelXattr &&
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

// access is who may do what with a file, besides its owners.
type access struct {
	mode uint32
	acl  [2]attr
}

func (e entry) accessOf() access {
	a := access{acl: [2]attr{attrOf(e, aclXattrs[0]), attrOf(e, aclXattrs[1])}}
	if e.kind != kindLink { // the mode of a symbolic link means nothing
		a.mode = e.mode
	}
	return a
}

// attr is an extended attribute that may be missing.
type attr struct {
	text  string
	there bool
}

func attrOf(e entry, name string) attr {
	text, ok := e.xattrs[name]
	return attr{text, ok}
}

func everyAttr(sides ...entry) []string {
	names := map[string]bool{}
	for _, side := range sides {
		for name := range side.xattrs {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// notByLine lists what is never joined by lines, though it is text: half of one version and half of another could let
// somebody in, keep everybody out or cut the host off; or both halves are only valid together.
var notByLine = adoptList{
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

// mergesByLine reports whether two changes of a file may be joined by lines.
func mergesByLine(name string) bool {
	return !notByLine.has(name) && !identity.has(name) && !ofImage.has(name) && !backups.has(name) &&
		!slices.Contains(accounts.Files, name)
}

// readChangedTexts reads what may be joined by lines: the ordinary files whose content all sides have differently. A
// file that changes at this moment is left out, and so is a conflict.
func readChangedTexts(in Inputs, old, cur, next *snapshot) error {
	for name, c := range cur.tree {
		o, x := old.tree[name], next.tree[name]
		if o.kind != kindFile || c.kind != kindFile || x.kind != kindFile || !mergesByLine(name) ||
			c.sum == o.sum || o.sum == x.sum || c.sum == x.sum {
			continue
		}
		texts := map[*snapshot][]byte{}
		for _, side := range []struct {
			s    *snapshot
			from string
		}{{old, in.Old}, {cur, in.Current}, {next, in.Next}} {
			text, err := readStart(side.from, name, merge3.MaxText+1)
			if err != nil {
				return err
			}
			if sumOf(text) == side.s.tree[name].sum && merge3.IsText(text) {
				texts[side.s] = text
			}
		}
		if len(texts) == 3 {
			for s, text := range texts {
				s.text[name] = text
			}
		}
	}
	return nil
}
