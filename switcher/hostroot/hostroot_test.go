package hostroot

import (
	"slices"
	"strings"
	"testing"
)

// TestOwnPoints: what a host root is made of is mounted, those above others first; data, servers and swap are not.
func TestOwnPoints(t *testing.T) {
	for name, c := range map[string]struct {
		fstab string
		want  []ownPoint
	}{
		"empty":   {"", nil},
		"comment": {"#UUID=1 /boot ext4 defaults 0 2\n", nil},
		"root and boot": {"UUID=1 / ext4 x 0 1\nUUID=3 /boot/efi vfat umask=0077 0 1\nUUID=2 /boot ext4 x 0 2\n",
			[]ownPoint{{"/boot", false}, {"/boot/efi", false}}},
		"efi that waits":        {"UUID=3 /efi vfat noauto,x-systemd.automount 0 1\n", []ownPoint{{"/efi", false}}},
		"var that waits":        {"UUID=3 /var/backups ext4 noauto 0 1\n", nil},
		"data":                  {"UUID=4 /srv ext4 defaults 0 2\nUUID=5 /home xfs defaults 0 2\n", nil},
		"a name like one":       {"UUID=4 /bootstrap ext4 defaults 0 2\nUUID=5 /variety xfs defaults 0 2\n", nil},
		"server":                {"nas:/x /var/data nfs4 defaults 0 0\n//nas/y /opt/y cifs defaults 0 0\n", nil},
		"server with an option": {"UUID=6 /var/lib/x ext4 _netdev 0 2\n", nil},
		"memory":                {"tmpfs /var/tmp tmpfs size=1g 0 0\n", nil},
		"below var":             {"UUID=3 /var/backups ext4 defaults,nofail 0 1\n", nil},
		"may be missing":        {"UUID=3 /var ext4 nofail 0 1\n", []ownPoint{{"/var", true}}},
		"short line":            {"UUID=1 /boot ext4\n", nil},
		"twice": {"UUID=2 /boot ext4 defaults 0 2\nUUID=2 /boot ext4 defaults 0 2\n",
			[]ownPoint{{"/boot", false}}},
	} {
		if got := ownPoints(c.fstab); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestTail: of a long output, the end is kept, however it is written.
func TestTail(t *testing.T) {
	for _, chunk := range []int{1, 1000, maxOutput, 3 * maxOutput} {
		var out tail
		whole := strings.Repeat("0123456789", maxOutput/2)
		for part := range slices.Chunk([]byte(whole), chunk) {
			if n, err := out.Write(part); n != len(part) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
		if out.String() != whole[len(whole)-maxOutput:] {
			t.Errorf("in chunks of %d, %d bytes are kept, and not the last %d", chunk, out.Len(), maxOutput)
		}
	}
}
