package fstab

import (
	"bytes"
	"strings"
	"testing"
)

// TestMoveFstab: a line of the host whose source lies on the host root is rewritten or disabled, and named.
func TestMoveFstab(t *testing.T) {
	const host = "/.updatectl/host"
	const off = "# updatectl: its source is on the host root: "
	const swapOff = "# updatectl: the root is read-only and cannot hold a swap file: "
	h := Sources{Kept: []string{"/var", "/home", "/srv"}, Mount: host}
	for name, c := range map[string]struct{ line, want, note string }{
		"swap file":             {"/swap.img none swap sw 0 0", swapOff + "/swap.img none swap sw 0 0", "/swap.img"},
		"swap file, no options": {"\t/swapfile swap swap", swapOff + "\t/swapfile swap swap", "/swapfile"},
		"swap file by detour":   {"/var/../swap none swap", swapOff + "/var/../swap none swap", "/swap"},
		"swap file on state":    {"/var/swap none swap sw 0 0", "", ""},
		"swap file on own disk": {"/data/swap none swap sw 0 0", "", ""},
		"swap file with spaces": {`/a\040b none swap`, swapOff + `/a\040b none swap`, "/a b"},
		"swap partition":        {"/dev/sda2 none swap sw 0 0", "", ""},
		"swap by UUID":          {"UUID=1-2 none swap sw,discard 0 0", "", ""},
		"disabled swap":         {"#/swap.img none swap sw 0 0", "", ""},

		"bind":                {"/opt/data /srv/data none bind", host + "/opt/data /srv/data none bind", "/opt/data"},
		"bind, nofail":        {"/opt/d /mnt none rbind,nofail", host + "/opt/d /mnt none rbind,nofail", "/opt/d"},
		"bind with spaces":    {`/o\040p /s none bind`, host + `/o\040p /s none bind`, "/o p"},
		"bind of the root":    {"/ /mnt/root none bind", host + "/ /mnt/root none bind", host},
		"bind of /usr/local":  {"/usr/local /mnt none bind", host + "/usr/local /mnt none bind", "/usr/local"},
		"bind of state":       {"/srv/a /home/b none bind", "", ""},
		"bind of state/":      {"/srv/ /home/b none bind", "", ""},
		"bind of a like name": {"/srv2/a /b none bind", host + "/srv2/a /b none bind", "/srv2/a"},
		"bind of own disk":    {"/data/x /srv/x none bind", "", ""},
		"bind of /tmp":        {"/tmp /var/tmp none bind", "", ""},
		"bind of /run":        {"/run/shm /dev/shm none bind", "", ""},
		"bind moved before":   {host + "/opt/data /srv/data none bind", "", ""},
		"bind by automount": {"/opt/d /mnt none bind,x-systemd.automount",
			host + "/opt/d /mnt none bind,x-systemd.automount", "/opt/d"},

		"loop image":          {"/i/x.img /mnt ext4 loop 0 0", host + "/i/x.img /mnt ext4 loop 0 0", "/i/x.img"},
		"loop image, no word": {"/x.iso /mnt/x auto ro", host + "/x.iso /mnt/x auto ro", "/x.iso"},
		"loop image on state": {"/srv/x.img /mnt/x ext4 loop", "", ""},

		"overlay": {"overlay /mnt/o overlay lowerdir=/usr/share/a:/srv/b,upperdir=/opt/u,workdir=/opt/w",
			off + "overlay /mnt/o overlay lowerdir=/usr/share/a:/srv/b,upperdir=/opt/u,workdir=/opt/w", "/usr/share/a"},
		"overlay on state": {"overlay /mnt/o overlay lowerdir=/srv/l,upperdir=/srv/u,workdir=/srv/w", "", ""},
		"union":            {"/opt/a:/srv/b /pool fuse.mergerfs", off + "/opt/a:/srv/b /pool fuse.mergerfs", "/opt/a"},
		"union of disks":   {"/data*:/srv/b /pool fuse.mergerfs defaults", "", ""},
		"fuse by device":   {"/dev/sdb1 /mnt fuse.exfat defaults", "", ""},

		"UUID":       {"UUID=1 /mnt ext4 nofail,x-systemd.device-timeout=5 0 2", "", ""},
		"PARTUUID":   {"PARTUUID=1-01 /boot/efi vfat umask=0077", "", ""},
		"LABEL":      {`LABEL="my\040disk" /mnt xfs defaults`, "", ""},
		"PARTLABEL":  {"PARTLABEL=x /mnt xfs", "", ""},
		"device":     {"/dev/mapper/vg-data /mnt xfs defaults 0 0", "", ""},
		"quoted":     {`UUID=1 /mnt ext4 context="system_u:object_r:tmp_t:s0:c1,c2",ro`, "", ""},
		"tmpfs":      {"tmpfs /tmp tmpfs size=1G", "", ""},
		"proc":       {"proc /proc proc hidepid=2", "", ""},
		"nfs":        {"nas:/export /mnt/nfs nfs4 _netdev 0 0", "", ""},
		"nfs, auto":  {"nas:/home /home nfs x-systemd.automount,noauto 0 0", "", ""},
		"cifs":       {"//nas/share /mnt/share cifs credentials=/root/c 0 0", "", ""},
		"sshfs":      {"u@h:/x /mnt/x fuse.sshfs defaults", "", ""},
		"ceph":       {":/ /mnt/ceph ceph name=x", "", ""},
		"zfs":        {"pool/data /mnt zfs defaults", "", ""},
		"root":       {"UUID=1 / ext4 errors=remount-ro 0 1", "", ""},
		"/usr":       {"UUID=1 /usr ext4 ro", "", ""},
		"comment":    {"# /swap.img none swap", "", ""},
		"one field":  {"/swap.img", "", ""},
		"two fields": {"/opt/x /srv/x", "", ""},
		"empty":      {"", "", ""},
		"up":         {"/opt/../../opt/x /srv/x none bind", host + "/opt/x /srv/x none bind", host + "/opt/x"},
		"escaped up": {`/opt/\056./../o\040x /srv none bind`, host + `/o\040x /srv none bind`, host + "/o x"},
	} {
		t.Run(name, func(t *testing.T) {
			const disk = "UUID=9 /data ext4\n"
			if c.want == "" {
				c.want = c.line
			}
			text, notes := h.Move([]byte(disk + c.line))
			if got := strings.TrimPrefix(string(text), disk); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
			if c.note == "" && len(notes) > 0 || c.note != "" && (len(notes) != 1 || !strings.Contains(notes[0], c.note)) {
				t.Errorf("notes %q, want one about %q", notes, c.note)
			}
			again, notes := h.Move(text)
			if !bytes.Equal(again, text) || len(notes) > 0 {
				t.Errorf("moved again: %q, %q", again, notes)
			}
		})
	}
}

// TestSwapFileWithoutState: a configuration that keeps no state is a fault, but does not stop a rollback.
func TestSwapFileWithoutState(t *testing.T) {
	h := Sources{Mount: "/.updatectl/host"}
	text, notes := h.DropSwapFiles([]byte("/swap.img none swap\n"))
	const want = "fstab: the swap file /swap.img is not used: it lies on the host root, which is read-only for an image"
	if string(text) != swapFileOff+"/swap.img none swap\n" || len(notes) != 1 || notes[0] != want {
		t.Errorf("got %q, %q", text, notes)
	}
}
