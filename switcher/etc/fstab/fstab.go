// Package fstab says what a root mounts by its fstab and by native mount and swap units, and changes both so that an
// image root can use them: nothing is mounted over the image, and no source lies where only the host root has it.
//
// Nothing here writes a file.
package fstab

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/paths"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// MaxSize bounds the size of an fstab in bytes.
const MaxSize = 1 << 20

// imageMounts are the mount points that the image provides, with the comment that disables their lines. With the line
// of /, systemd-remount-fs would apply the disk's options to an overlay and fail; the others would mount the old tree
// over the new one.
var imageMounts = map[string]string{
	"/":    "# updatectl: the root is an image: ",
	"/usr": "# updatectl: /usr is part of the image: ",
	"/etc": "# updatectl: /etc belongs to the root: ",
}

// Filter returns an fstab in which the lines that mount over the image are commented out. All others stay as they
// are; filtering again changes nothing.
func Filter(fstab []byte) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(fstab) {
		if point, ok := mountPoint(string(line)); ok {
			out.WriteString(imageMounts[point])
		}
		out.Write(line)
	}
	return out.Bytes()
}

// MountPoints returns the mount points in an fstab, sorted: without those that the image provides, and without
// those below the kernel's own trees, where a root needs no directories. It also returns those of them that systemd
// Mounts on first use. It reads at most the first MiB.
func MountPoints(r io.Reader) (points, automounts []string) {
	fstab, _ := io.ReadAll(io.LimitReader(r, MaxSize)) // what was read before an error still counts
	for line := range bytes.Lines(fstab) {
		point, ok := mountPoint(string(line))
		if _, image := imageMounts[point]; !ok || image || underKernelTree(point) {
			continue
		}
		points = append(points, point)
		if l, ok := parseFstabLine(string(line)); ok && l.isAutomount() {
			automounts = append(automounts, point)
		}
	}
	slices.Sort(points)
	slices.Sort(automounts)
	return slices.Compact(points), slices.Compact(automounts)
}

// UnitMountPoints returns the mount points of the mount and automount units that lie in an /etc, like
// [MountPoints].
func UnitMountPoints(dir string) []string {
	units := rootfs.Dir(dir)
	var points []string
	for _, name := range units.Names("systemd/system") {
		if ext := path.Ext(name); ext != ".mount" && ext != ".automount" ||
			NeverCarried.Has(path.Join("systemd/system", name)) {
			continue
		}
		text, _ := units.ReadFile(path.Join("systemd/system", name), rootfs.MaxConfig)
		for line := range bytes.Lines(text) {
			key, value, _ := strings.Cut(string(line), "=")
			point := path.Clean(strings.TrimSpace(value))
			if _, image := imageMounts[point]; strings.TrimSpace(key) == "Where" && path.IsAbs(point) && !image &&
				!underKernelTree(point) && !strings.Contains(point, "%") {
				points = append(points, point)
			}
		}
	}
	slices.Sort(points)
	return slices.Compact(points)
}

// mountPoint returns the mount point of a line, and whether it has one; swap has none.
func mountPoint(line string) (string, bool) {
	fields := strings.Fields(line)
	if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
		return "", false
	}
	point := unescape(fields[1])
	if !strings.HasPrefix(point, "/") || strings.ContainsRune(point, 0) {
		return "", false
	}
	return path.Clean(point), true
}

// octalEscape matches an escaped byte. fstab(5) names two of them; mount(8) decodes all.
var octalEscape = regexp.MustCompile(`\\[0-3][0-7]{2}`)

// unescape decodes the escapes in a field.
func unescape(field string) string {
	return octalEscape.ReplaceAllStringFunc(field, func(escape string) string {
		b, _ := strconv.ParseUint(escape[1:], 8, 8) // the pattern lets through nothing else
		return string([]byte{byte(b)})
	})
}

func underKernelTree(point string) bool {
	return slices.Contains([]string{"dev", "proc", "sys", "run"}, strings.Split(point, "/")[1])
}

// Join returns the adopted fstab: the host's lines, then those of the image for mount points that the host does
// not have. Both must be filtered.
func Join(host, image []byte) []byte {
	seen := map[string]bool{}
	for line := range bytes.Lines(host) {
		if point, ok := mountPoint(string(line)); ok {
			seen[point] = true
		}
	}
	out := bytes.Clone(host)
	for line := range bytes.Lines(image) {
		if point, ok := mountPoint(string(line)); ok && !seen[point] {
			if len(out) > 0 && out[len(out)-1] != '\n' {
				out = append(out, '\n')
			}
			out = append(out, line...)
		}
	}
	return out
}

// NeverCarried is what a pattern of adopted.Default matches and must not come: mounts over the image, and those of
// snaps, which snapd makes for itself.
var NeverCarried = paths.List{
	"systemd/system/-.mount", "systemd/system/usr.mount", "systemd/system/etc.mount",
	"systemd/system/*.wants/-.mount", "systemd/system/*.wants/usr.mount", "systemd/system/*.wants/etc.mount",
	"systemd/system/*.requires/-.mount", "systemd/system/*.requires/usr.mount", "systemd/system/*.requires/etc.mount",
	"systemd/system/snap-*.mount", "systemd/system/*.wants/snap-*.mount",
}

// AutomountNotes returns notes about the state paths that an fstab mounts on first use, and mount points below them:
// these are not carried over.
func AutomountNotes(fstab []byte, kept []string) (notes []string) {
	_, automounts := MountPoints(bytes.NewReader(fstab))
	for _, point := range automounts {
		if slices.ContainsFunc(kept, func(k string) bool { return paths.IsUnder(point, k) }) {
			notes = append(notes, fmt.Sprintf("fstab: %s is mounted on first use (x-systemd.automount): the new root "+
				"mounts it itself", point))
		}
	}
	return notes
}
