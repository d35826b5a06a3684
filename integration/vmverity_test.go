//go:build lab && vm

package integration

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

func init() { rarely = append(rarely, lab.Btrfs) }

const (
	// placeOnExt4 prints where on its device a file begins. The ioctl 1 is FIBMAP: which block of the device has the
	// file's first one.
	placeOnExt4 = `block=$(perl -e 'open F, "<", shift or die; $b = pack "i", 0; ioctl F, shift, $b or die;
	print unpack "i", $b' "$1" 1)
test "$block" -gt 0; echo $((block * $(stat -fc %S "$1")))`
	// placeOnBtrfs does the same, and prints where copies are that were removed. There is no FIBMAP on btrfs, and
	// FIEMAP tells no place on the device.
	placeOnBtrfs = `perl -e 'open F, "<", shift or die; 4096 == read F, $begin, 4096 or die; open D, "<", shift or die;
	for ($at = 0; $read = sysread D, $part, 1 << 20; $at += $read) {
		for ($i = -1; ($i = index $part, $begin, $i + 1) >= 0;) { print $at + $i, "\n" }
	}' "$1" "$device"`
	// flipOnDisk flips a bit of a file on the disk, behind the file system, and forgets what was read of it before.
	flipOnDisk = `device=$(findmnt -nvo SOURCE -T "$1"); test -b "$device"
sync; echo 3 > /proc/sys/vm/drop_caches
places=$(eval "$2"); test -n "$places"
for at in $places; do
	byte=$(od -An -tu1 -j$((at + 100)) -N1 "$device")
	printf "\\$(printf %o $((byte ^ 1)))" | dd of="$device" bs=1 seek=$((at + 100)) conv=notrunc,fsync status=none
done
echo 3 > /proc/sys/vm/drop_caches; dmesg -C`
)

// What the kernel logs when a file has a wrong block.
const (
	saysVerity = "FILE CORRUPTED" // by fs-verity
	saysBtrfs  = "csum failed"    // by the file system's own checksums, which come first
)

// TestVMVerity tests integrity at rest with fs-verity: everything that the running root consists of is verified by the
// kernel at each read, also what was staged without fs-verity. A bit that flips on the disk is an I/O error, which fsck
// finds and repairs, as it does an edited image.json and exchanged directories of roots.
func TestVMVerity(t *testing.T) {
	for name, c := range map[string]struct {
		place string
		// flips are the files in which a bit flips, in this order, and who finds out.
		flips []flip
	}{
		"ext4": {placeOnExt4, []flip{{"object", saysVerity}, {"root.cfs", saysVerity}}},
		// What was on the host's disk from the start has checksums of btrfs. What was written since has none: see lab.Btrfs.
		"btrfs": {placeOnBtrfs, []flip{{"object", saysBtrfs}, {"root.cfs", saysVerity}, {"object", saysVerity}}},
	} {
		t.Run(name, func(t *testing.T) {
			beside(t, lab.QEMU)
			v := newVerityCase(t, name)
			for i, f := range c.flips {
				path := v.path[f.file]
				v.flips(path, c.place, f.says)
				if i == 0 {
					v.finds(path)
				}
				v.repairs(path)
			}
			object, one := v.path["object"], filepath.Dir(v.path["root.cfs"])
			v.host.Must(t, "sh", "-ec", `cp "$1" "$1.new" && mv "$1.new" "$1"`, "copy", object) // without fs-verity
			v.repairs(object)
			v.host.Must(t, "sed", "-i", "s/reference/referenze/", one+"/image.json")
			v.refuses("its checksum is wrong")
			v.repairs(one)
			v.host.Must(t, "sh", "-ec", `mv "$1" "$1.old"; mv "$2" "$1"; mv "$1.old" "$2"`, "exchange", one, v.small)
			v.refuses("image.json is about")
			v.repairs(one, v.small)
			v.fsck(exitDone)

			v.switches("rollback", v.roots["1"])
			v.runs(v.roots["1"], "1")
		})
	}
}

type flip struct{ file, says string }

// verityCase is a host that has gone to image 1 and back to the host root, and has another root besides.
type verityCase struct {
	*site
	path  map[string]string // of an object and of root.cfs of image 1
	small string            // the directory of the other root
}

func newVerityCase(t *testing.T, fileSystem string) *verityCase {
	t.Helper()
	v := &verityCase{site: newPublisher(t)}
	v.publish("1", "os/server:stable")
	v.boot(lab.Options{
		Name: "vm" + fileSystem, Kind: lab.QEMU, Btrfs: fileSystem == "btrfs", Customise: patiently,
	}, func(root string) error {
		return v.stageAhead(root, "os/server:stable") // without fs-verity: apply adds it
	})
	h, store := v.host, "/var/lib/updatectl"
	if got := h.Must(t, "findmnt", "-no", "FSTYPE", "-T", store); got != fileSystem {
		t.Fatalf("the store is on %s", got)
	}
	var small struct{ Root string }
	v.answer(&small, exitAvailable, "stage", "--from", v.registry.Host+"/"+v.offer("small", smallTree(t), v.publisher.Key))
	v.updatectl(exitDone, "pin", small.Root)
	v.small = store + "/roots/" + small.Root

	v.switches("apply")
	v.runs(v.roots["1"], "1")
	if mounts := h.Must(t, "cat", "/proc/self/mountinfo"); !strings.Contains(mounts, "verity=require") {
		t.Errorf("the root is not mounted with verity=require:\n%s", mounts)
	}
	if r := v.fsck(exitDone); r.Roots != 2 || r.Objects == 0 || r.Verified != r.Objects {
		t.Errorf("the kernel verifies %d of %d objects of %d roots", r.Verified, r.Objects, r.Roots)
	}
	v.path = map[string]string{
		"object":   h.Must(t, "sh", "-c", "find "+store+"/objects -type f -size +100k -size -200k | sort | head -n 1"),
		"root.cfs": store + "/roots/" + v.roots["1"] + "/root.cfs",
	}
	for _, path := range v.path {
		if r := h.Sh(t.Context(), "echo x >> "+path); r.Code == 0 {
			t.Errorf("%s can be written", path)
		}
	}
	v.switches("rollback", "host")
	v.settled()
	return v
}

type fscked struct {
	Roots, Objects, Verified int
	Damage                   []damage
	Repaired                 []string
}

type damage struct{ Path string }

// fsck runs fsck, expects an exit code and returns its answer.
func (v *verityCase) fsck(code int, options ...string) (report fscked) {
	v.Helper()
	v.answer(&report, code, append([]string{"fsck"}, options...)...)
	return report
}

// flips flips a bit of a file, and expects that nobody can read it then, and who finds out.
func (v *verityCase) flips(path, place, says string) {
	v.Helper()
	v.host.Must(v.T, "sh", "-ec", flipOnDisk, "flip", path, place)
	if r := v.host.Run(v.Context(), "cat", path); r.Code == 0 || !strings.Contains(r.Stderr, "Input/output error") {
		v.Errorf("a byte of %s was flipped on the disk, and the file can be read: exit code %d, %s", path, r.Code, r.Stderr)
	}
	if log := v.host.Must(v.T, "dmesg"); !strings.Contains(log, says) {
		v.Errorf("when %s is read, the kernel does not log %q:\n%s", path, says, log)
	}
}

// refuses expects that the host cannot be led into image 1, and stays where it is.
func (v *verityCase) refuses(reason string) {
	v.Helper()
	v.refused(exitError, reason, "", "rollback", v.roots["1"])
	if s := v.status(); s.Booted.Root != "host" || s.Phase != "good" || s.Armed != "" {
		v.Errorf("after %q, status is %+v", reason, s)
	}
}

// finds expects fsck to find damage at a path.
func (v *verityCase) finds(path string) {
	v.Helper()
	if found := v.fsck(exitNotTrusted).Damage; len(found) != 1 || !strings.HasPrefix(path, found[0].Path) {
		v.Errorf("fsck finds %+v, want %s", found, path)
	}
}

// repairs expects fsck to find damage at paths and to repair it. Each damage is repaired before the next one: none must
// be found only because of another.
func (v *verityCase) repairs(paths ...string) {
	v.Helper()
	r := v.fsck(exitDone, "--repair")
	for _, path := range paths {
		if !slices.ContainsFunc(r.Repaired, func(repaired string) bool { return strings.HasPrefix(path, repaired) }) {
			v.Errorf("fsck does not repair %s, but %q", path, r.Repaired)
		}
	}
	if r.Objects == 0 || r.Verified != r.Objects {
		v.Errorf("after the repair of %q, the kernel verifies %d of %d objects", paths, r.Verified, r.Objects)
	}
}
