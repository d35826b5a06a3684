package etc

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/etc/fstab"
)

// TestLayouts: hosts with the files that installers of other distributions write get their first image. What is needed
// to log in, to be reached and to mount disks comes along, and nothing that would keep the root from booting.
func TestLayouts(t *testing.T) {
	for name, c := range map[string]struct {
		users   string // a directory below testdata with the user databases
		files   map[string]string
		people  []string // who must still be able to log in
		along   []string // paths below /etc
		behind  []string
		fstab   []string // lines of the new fstab, whole
		noFstab []string // parts that no active line of it has
		points  []string // mount points that the root needs
		notes   []string // parts of notes in the report
	}{
		"Ubuntu 24.04": {
			users: "ubuntu",
			files: map[string]string{
				"etc/sudoers.d/90-cloud-init-users": "ubuntu ALL=(ALL) NOPASSWD:ALL\n",
				"etc/netplan/50-cloud-init.yaml":    "network: {version: 2, ethernets: {ens3: {dhcp4: true}}}\n",
				"etc/cloud/cloud.cfg":               "datasource_list: [ NoCloud ]\n",
				"etc/fstab": "/dev/disk/by-id/dm-uuid-LVM-x / ext4 defaults 0 1\n" +
					"/dev/disk/by-uuid/a /boot ext4 defaults 0 1\n/dev/disk/by-uuid/AB-CD /boot/efi vfat defaults 0 1\n" +
					"/swap.img\tnone\tswap\tsw\t0\t0\n",
				"etc/systemd/system/snap-core22-1564.mount": "[Mount]\n" +
					"What=/var/lib/snapd/snaps/core22_1564.snap\nWhere=/snap/core22/1564\nType=squashfs\n",
				"etc/systemd/system/multi-user.target.wants/snap-core22-1564.mount": "-> ../snap-core22-1564.mount",
				"etc/ssh/sshd_config.d/50-cloud-init.conf":                          "PasswordAuthentication no\n",
				"etc/apparmor.d/local/usr.sbin.sshd":                                "# local\n",
				"home/ubuntu/":                                                      "",
			},
			people: []string{"ubuntu"},
			along: []string{"netplan/50-cloud-init.yaml", "cloud/cloud.cfg", "ssh/sshd_config.d/50-cloud-init.conf",
				"sudoers.d/90-cloud-init-users"},
			behind:  []string{"systemd/system/snap-core22-1564.mount"}, // an image has no snapd, which mounts its snaps anew
			fstab:   []string{"/dev/disk/by-uuid/a /boot ext4 defaults 0 1"},
			noFstab: []string{"/swap.img", "dm-uuid-LVM-x"},
			points:  []string{"/boot", "/boot/efi"},
			notes:   []string{"/swap.img"},
		},
		"Fedora 42": {
			users: "fedora",
			files: map[string]string{
				"etc/sudoers": "root\tALL=(ALL) \tALL\n%wheel\tALL=(ALL)\tALL\n#includedir /etc/sudoers.d\n",
				"etc/fstab": "UUID=b / btrfs subvol=root,compress=zstd:1 0 0\nUUID=c /boot ext4 defaults 1 2\n" +
					"UUID=b /home btrfs subvol=home,compress=zstd:1 0 0\n",
				"etc/NetworkManager/system-connections/lan.nmconnection": "[connection]\nid=lan\n",
				"etc/firewalld/zones/public.xml":                         "<zone/>\n",
				"etc/systemd/zram-generator.conf":                        "[zram0]\n",
				"etc/selinux/config":                                     "SELINUX=enforcing\nSELINUXTYPE=targeted\n",
				"etc/authselect/authselect.conf":                         "local\n",
				"etc/ssh/sshd_config.d/50-redhat.conf":                   "UsePAM yes\n",
				"etc/sssd/sssd.conf":                                     "[sssd]\n",
				"etc/yum.repos.d/fedora.repo":                            "[fedora]\n",
				"home/admin/":                                            "",
			},
			people: []string{"admin"},
			along: []string{"NetworkManager/system-connections/lan.nmconnection", "firewalld/zones/public.xml",
				"authselect/authselect.conf", "ssh/sshd_config.d/50-redhat.conf", "sssd/sssd.conf", "sudoers"},
			behind:  []string{"yum.repos.d/fedora.repo", "selinux/config"},
			fstab:   []string{"UUID=c /boot ext4 defaults 1 2", "UUID=b /home btrfs subvol=home,compress=zstd:1 0 0"},
			noFstab: []string{"subvol=root"},
			points:  []string{"/boot", "/home"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			host := hostTree(t, c.users, c.files)
			dst := filepath.Join(t.TempDir(), "etc")
			rep, err := Merge(Inputs{
				Current: host + "/etc", Next: "testdata/image", Host: host,
				Sources: fstab.Sources{Kept: []string{"/var", "/home", "/root", "/srv"}, Mount: "/.updatectl/host"},
			}, dst)
			if err != nil {
				t.Fatal(err)
			}
			people := names(read1(t, dst+"/passwd"))
			for _, person := range c.people {
				if !slices.Contains(people, person) {
					t.Errorf("%s is locked out", person)
				}
			}
			for _, name := range c.along {
				if !isThere(dst, name) {
					t.Errorf("%s does not come along", name)
				}
			}
			for _, name := range c.behind {
				if isThere(dst, name) {
					t.Errorf("%s of another distribution comes along", name)
				}
			}
			mounts := read1(t, dst+"/fstab")
			for _, line := range c.fstab {
				if !slices.Contains(strings.Split(mounts, "\n"), line) {
					t.Errorf("the fstab has no line %q:\n%s", line, mounts)
				}
			}
			for line := range strings.Lines(mounts) {
				for _, part := range c.noFstab {
					if strings.Contains(line, part) && !strings.HasPrefix(line, "#") {
						t.Errorf("the fstab still has %q", line)
					}
				}
			}
			points, _ := fstab.MountPoints(strings.NewReader(mounts))
			points = append(points, fstab.UnitMountPoints(dst)...)
			if slices.Sort(points); !slices.Equal(points, c.points) {
				t.Errorf("mount points: %q, want %q", points, c.points)
			}
			for _, part := range c.notes {
				if !slices.ContainsFunc(rep.Notes, func(note string) bool { return strings.Contains(note, part) }) {
					t.Errorf("no note names %s: %q", part, rep.Notes)
				}
			}
		})
	}
}

func isThere(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}
