//go:build lab && vm

package integration

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/updatectl/updatectl/integration/lab"
)

const (
	// stageAnew stages an image in another tree, in which nothing is staged, and prints how long that took, in
	// nanoseconds. A kernel that wants signatures ($2 is 1) refuses to enable fs-verity: updatectl does without, on the
	// same disk.
	stageAnew = `echo "$2" > /proc/sys/fs/verity/require_signatures
rm -rf "$1/var/lib/updatectl"; sync; echo 3 > /proc/sys/vm/drop_caches
begin=$(date +%s%N)
updatectl --root "$1" --quiet stage > /dev/null || test $? = 10
echo $(($(date +%s%N) - begin)); echo 0 > /proc/sys/fs/verity/require_signatures`
	// readCold mounts a staged root as updatectl does, with one more option ($3), reads all of its /usr with nothing of
	// it in memory, and prints how long that took.
	readCold = `store=$1/var/lib/updatectl; mkdir -p /mnt/names /mnt/root
mount -t erofs -o ro,loop "$store/roots/$2/root.cfs" /mnt/names
mount -t overlay -o "ro,metacopy=on,redirect_dir=on,lowerdir=/mnt/names::$store/objects${3:+,$3}" overlay /mnt/root
if [ -n "$3" ]; then findmnt -no OPTIONS /mnt/root | grep -q "$3"; fi
sync; echo 3 > /proc/sys/vm/drop_caches
begin=$(date +%s%N)
find /mnt/root/usr -type f -exec cat {} + > /dev/null
echo $(($(date +%s%N) - begin)); umount /mnt/root /mnt/names`
	// costRounds is how often everything is measured: in turns, as the machine that runs the lab is never equally busy.
	costRounds = 3
)

// TestVMVerityCosts measures what fs-verity costs, as ratios: staging an image, and reading all of a root that is
// mounted with verity=require. An emulated processor computes checksums slowly, so real ones pay less.
func TestVMVerityCosts(t *testing.T) {
	beside(t, lab.QEMU)
	s := newPublisher(t)
	s.publish("1", "os/server:stable")
	s.boot(lab.Options{Name: "vmcosts", Kind: lab.QEMU}, nil)
	const with, without = "/srv/with", "/srv/without"
	for _, dir := range []string{with, without} {
		s.host.Must(t, "sh", "-ec", `mkdir -p "$1/etc" "$1/var/lib"; cp -a /etc/updatectl "$1/etc"`, "prepare", dir)
	}
	var stages, reads costs
	for round := range costRounds {
		order := []string{with, without}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, dir := range order {
			signed, option := "0", "verity=require"
			if dir == without {
				signed, option = "1", ""
			}
			staging, reading := s.takes(stageAnew, dir, signed), s.takes(readCold, dir, s.roots["1"], option)
			t.Logf("%s: staging took %v, reading %v", dir, staging, reading)
			stages.add(dir == with, staging)
			reads.add(dir == with, reading)
		}
	}
	for dir, all := range map[string]bool{with: true, without: false} {
		var r struct{ Objects, Verified int }
		s.answer(&r, exitDone, "--root", dir, "fsck")
		if r.Objects == 0 || all && r.Verified != r.Objects || !all && r.Verified != 0 {
			t.Errorf("in %s, the kernel verifies %d of %d objects", dir, r.Verified, r.Objects)
		}
	}
	t.Logf("staging an image:         %s", stages)
	t.Logf("reading /usr of its root: %s", reads)
}

// takes runs a script in the host that prints how long something took.
func (s *site) takes(script string, args ...string) time.Duration {
	s.Helper()
	out := s.host.Must(s.T, append([]string{"sh", "-ec", script, "measure"}, args...)...)
	n, err := strconv.ParseInt(out, 10, 64)
	if err != nil || n <= 0 {
		s.Fatalf("the script took %q: %v", out, err)
	}
	return time.Duration(n).Round(10 * time.Millisecond)
}

// costs are how long something took with fs-verity, and without.
type costs struct{ with, without []time.Duration }

func (c *costs) add(with bool, took time.Duration) {
	if with {
		c.with = append(c.with, took)
	} else {
		c.without = append(c.without, took)
	}
}

func (c costs) String() string {
	return fmt.Sprintf("with fs-verity %v, without %v: ratio of the medians %.2f", c.with, c.without,
		float64(median(c.with))/float64(median(c.without)))
}

func median(all []time.Duration) time.Duration { return slices.Sorted(slices.Values(all))[len(all)/2] }
