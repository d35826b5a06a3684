package hostroot

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updatectl/updatectl/switcher/testtree"
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

// TestProgram: a program has the streams of the caller, and its exit code is passed on as a shell does.
func TestProgram(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -9 $$": 137, "no-such-program": 127} {
		var out strings.Builder
		p := Program{
			Args: []string{"sh", "-c", "cat; " + script}, Stdin: strings.NewReader("here"), Stdout: &out, Stderr: &out,
		}
		code, err := Programs{}.Run(t.Context(), "/", p)
		if err != nil || code != want || !strings.HasPrefix(out.String(), "here") {
			t.Errorf("%s: %d, %v, %q", script, code, err, out.String())
		}
	}
}

// TestProgramMayEnd: a program that is asked to end can finish what it does.
func TestProgramMayEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ready := filepath.Join(t.TempDir(), "ready")
	var out strings.Builder
	go func() {
		for range 1000 {
			if _, err := os.Stat(ready); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	}()
	const script = `trap 'sleep 0.2; echo done; exit 3' TERM; touch "$0"; while :; do sleep 0.01; done`
	code, err := Programs{}.Run(ctx, "/", Program{Args: []string{"sh", "-c", script, ready}, Stdout: &out})
	if code != 3 || err != nil || out.String() != "done\n" {
		t.Errorf("%d, %v, %q", code, err, out.String())
	}
}

// TestInside: a program in the host root gets the caller's variables, but for those that lead out of it.
func TestInside(t *testing.T) {
	got := inside([]string{
		"http_proxy=http://proxy", "PATH=/image/bin", "NOTIFY_SOCKET=/run/systemd/notify", "TERM=xterm",
	})
	want := []string{"PATH=" + searchPath, "SYSTEMD_OFFLINE=1", "http_proxy=http://proxy", "TERM=xterm"}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestKeepServicesOut: packages are kept from starting services for as long as a program runs, and what an operator has
// set up for that stays.
func TestKeepServicesOut(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(dir string)
		during  string // what the rule is then, "" for none
		after   string
	}{
		"Debian":    {func(dir string) { testtree.File(t, dir, policyAsker, "") }, policyText, ""},
		"no Debian": {func(dir string) { testtree.File(t, dir, "/usr/sbin/chkconfig", "") }, "", ""},
		"the operator's": {
			func(dir string) { testtree.File(t, dir, policyAsker, ""); testtree.File(t, dir, policy, "mine") }, "mine", "mine",
		},
		"left by a power cut": {func(dir string) {
			testtree.File(t, dir, policyAsker, "")
			if err := os.Symlink(policyTarget, dir+policy); err != nil {
				t.Fatal(err)
			}
		}, policyText, ""},
	} {
		dir := t.TempDir()
		testtree.File(t, dir, "/run/.keep", "")
		c.prepare(dir)
		look := func() string {
			at := dir + policy
			if target, err := os.Readlink(at); err == nil {
				at = dir + target // as it is in a chroot
			}
			text, _ := os.ReadFile(at)
			return string(text)
		}
		done, err := At(dir).keepServicesOut()
		if err != nil {
			t.Fatal(err)
		}
		if got := look(); got != c.during {
			t.Errorf("%s: the rule is %q, want %q", name, got, c.during)
		}
		if err := done(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := look(); got != c.after {
			t.Errorf("%s: afterwards the rule is %q, want %q", name, got, c.after)
		}
	}
}
