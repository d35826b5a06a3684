package etc

import (
	"bytes"
	"io"
	"path"
	"slices"
	"strings"
)

// maxFstab bounds what is read of an fstab.
const maxFstab = 1 << 20

// imageMounts are the places the image itself fills. Left in fstab, the line
// of / makes systemd-remount-fs apply the disk's options to an overlay (and
// fail), and the others would put the old tree over the new one.
var imageMounts = map[string]string{
	"/":    "# updatectl: the root is an image: ",
	"/usr": "# updatectl: /usr is part of the image: ",
	"/etc": "# updatectl: /etc belongs to the root: ",
}

// FilterFstab comments out the lines that mount over the image and keeps all
// others as they are. Filtering twice changes nothing.
func FilterFstab(fstab []byte) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(fstab) {
		if point, ok := mountPoint(string(line)); ok {
			out.WriteString(imageMounts[point])
		}
		out.Write(line)
	}
	return out.Bytes()
}

// FstabMountPoints lists the directories the lines of an fstab are mounted on,
// sorted, without those the image fills and without the kernel's own trees,
// where the root has nothing to provide. At most the first MiB is read.
func FstabMountPoints(r io.Reader) []string {
	fstab, _ := io.ReadAll(io.LimitReader(r, maxFstab)) // what was read before an error is still true
	var points []string
	for line := range bytes.Lines(fstab) {
		point, ok := mountPoint(string(line))
		if _, image := imageMounts[point]; ok && !image && !underKernelTree(point) {
			points = append(points, point)
		}
	}
	slices.Sort(points)
	return slices.Compact(points)
}

// mountPoint gives the directory a line mounts on; swap and the like have none.
func mountPoint(line string) (string, bool) {
	fields := strings.Fields(line)
	if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
		return "", false
	}
	point := fstabEscapes.Replace(fields[1])
	if !strings.HasPrefix(point, "/") || strings.ContainsRune(point, 0) {
		return "", false
	}
	return path.Clean(point), true
}

// fstabEscapes are the ones of fstab(5).
var fstabEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func underKernelTree(point string) bool {
	return slices.Contains([]string{"dev", "proc", "sys", "run"}, strings.Split(point, "/")[1])
}

// joinFstab is the adopted fstab: the host's lines, then those of the image
// that mount somewhere the host says nothing about. Both are filtered.
func joinFstab(host, image []byte) []byte {
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
