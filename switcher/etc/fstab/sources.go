package fstab

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/paths"
)

// Sources says where a new root finds what an fstab of the host takes from the host's own tree. The zero value
// changes no line.
type Sources struct {
	Kept  []string // state paths, which are at the same place in every root
	Mount string   // where the host root is mounted, read-only: what lies there has been moved before
}

const (
	swapFileOff = "# updatectl: the root is read-only and cannot hold a swap file: "
	hostPathOff = "# updatectl: its source is on the host root: "
)

// Move returns an fstab of the host root in which no line needs a file that lies on the host root. A bind mount or
// loop image is taken from [Sources.Mount]; the line of a swap file, a union or an overlay is commented out, since
// these must be written to. What lies on kept state or on a file system with a line of its own stays as it is. There is
// a note about each line that changes. Moving again changes nothing.
func (h Sources) Move(fstab []byte) (moved []byte, notes []string) {
	return h.changeLines(fstab, func(l fstabLine, own []string) (string, string) {
		if l.fstype == "swap" {
			return h.dropSwapFile(l, own)
		}
		return h.moveSource(l, own)
	})
}

// DropSwapFiles is [Sources.Move] for the swap files only: no image root can hold one, whoever wrote the line.
func (h Sources) DropSwapFiles(fstab []byte) (dropped []byte, notes []string) {
	return h.changeLines(fstab, h.dropSwapFile)
}

// changeLines calls change for each line, with the mount points that have a line of their own, and puts together what
// it returns: the new text of the line, and a note, "" for a line that stays.
func (h Sources) changeLines(fstab []byte, change func(l fstabLine, own []string) (text, note string)) (
	changed []byte, notes []string) {
	if h.Mount == "" {
		return fstab, nil
	}
	own := h.ownMounts(fstab)
	var out bytes.Buffer
	for line := range bytes.Lines(fstab) {
		text := string(line)
		if l, ok := parseFstabLine(text); ok {
			if now, note := change(l, own); note != "" {
				text, notes = now, append(notes, note)
			}
		}
		out.WriteString(text)
	}
	return out.Bytes(), notes
}

// dropSwapFile comments out the line of a swap file on the host root: swapon(8) needs to write to it.
func (h Sources) dropSwapFile(l fstabLine, own []string) (text, note string) {
	if l.fstype != "swap" || !h.onHostRoot(l.source, own) {
		return l.text, ""
	}
	return swapFileOff + l.text, h.swapNote("fstab", l.source)
}

// swapNote says why a swap file is left out of a file.
func (h Sources) swapNote(file, source string) string {
	note := fmt.Sprintf("%s: the swap file %s is not used: it lies on the host root, which is read-only for an image",
		file, path.Clean(source))
	if len(h.Kept) > 0 {
		note += fmt.Sprintf("; a swap file below %s stays", h.Kept[0])
	}
	return note
}

// moveSource takes the source of a line that is a path on the host root from where the host root is mounted.
func (h Sources) moveSource(l fstabLine, own []string) (text, note string) {
	for _, p := range l.layers() {
		if h.onHostRoot(p, own) {
			return hostPathOff + l.text, fmt.Sprintf("fstab: %s is not mounted: it needs %s on the host root, which is "+
				"read-only for an image", l.point, path.Clean(p))
		}
	}
	if l.layered() || !h.onHostRoot(l.source, own) {
		return l.text, ""
	}
	before, after, _ := strings.Cut(l.text, l.rawSource)
	source := l.rawSource
	if slices.Contains(strings.Split(l.source, "/"), "..") { // enough of them would lead out of the host root
		source = escaped.Replace(path.Clean(l.source))
	}
	return before + h.Mount + source + after, fmt.Sprintf("fstab: %s is mounted from %s, read-only: "+
		"its source is on the host root", l.point, path.Join(h.Mount, path.Clean(l.source)))
}

// escaped writes what would end a field, or begin an escape, as fstab(5) has it.
var escaped = strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`)

// ownMounts returns the mount points with a line whose source is a device or another host: what lies below them is not
// on the host root.
func (h Sources) ownMounts(fstab []byte) []string {
	var own []string
	for line := range bytes.Lines(fstab) {
		l, ok := parseFstabLine(string(line))
		if ok && imageMounts[l.point] == "" && strings.HasPrefix(l.point, "/") &&
			(!isHostPath(l.source) || h.kept(l.source)) {
			own = append(own, l.point)
		}
	}
	return own
}

// onHostRoot reports whether a source is a file or directory on the host root that a new root does not have. A glob
// lies where its matches do.
func (h Sources) onHostRoot(source string, own []string) bool {
	p := path.Clean(source)
	if !isHostPath(source) || h.kept(source) || paths.IsUnder(p, h.Mount) {
		return false
	}
	return !slices.ContainsFunc(own, func(point string) bool {
		matches, _ := path.Match(p, point) // a bad pattern is no glob
		return matches || paths.IsUnder(p, point)
	})
}

// kept reports whether a source is on kept state.
func (h Sources) kept(source string) bool {
	p := path.Clean(source)
	return slices.ContainsFunc(h.Kept, func(k string) bool { return paths.IsUnder(p, k) })
}

// isHostPath reports whether the source of a line is a path in the host's own tree: no device, no share of another
// host as cifs has it, and not below what every root has of its own.
func isHostPath(source string) bool {
	return strings.HasPrefix(source, "/") && !strings.HasPrefix(source, "//") &&
		!underKernelTree(path.Clean(source)) && !paths.IsUnder(path.Clean(source), "/tmp")
}

// fstabLine is a line of an fstab with three fields or more, decoded.
type fstabLine struct {
	text                           string // the whole line as it was
	rawSource                      string
	source, point, fstype, options string
}

// parseFstabLine returns a line's fields, and whether it is such a line and no comment.
func parseFstabLine(text string) (fstabLine, bool) {
	fields := strings.Fields(text)
	if len(fields) < 3 || strings.HasPrefix(fields[0], "#") {
		return fstabLine{}, false
	}
	l := fstabLine{text: text, rawSource: fields[0], source: unescape(fields[0]), fstype: fields[2]}
	l.point = fields[1] // of swap, a word
	if point, ok := mountPoint(text); ok {
		l.point = point
	}
	if len(fields) > 3 {
		l.options = fields[3]
	}
	return l, true
}

// isAutomount reports whether systemd mounts the line on first use (systemd.mount(5)).
func (l fstabLine) isAutomount() bool {
	return slices.Contains(strings.Split(l.options, ","), "x-systemd.automount") ||
		slices.Contains(strings.Split(l.options, ","), "comment=systemd.automount")
}

// layered reports whether the line joins several directories, which its source or its options name.
func (l fstabLine) layered() bool {
	return l.fstype == "overlay" || strings.HasPrefix(l.fstype, "fuse")
}

// layers returns the directories that a union or an overlay joins.
func (l fstabLine) layers() []string {
	if !l.layered() {
		return nil
	}
	var dirs []string
	if strings.HasPrefix(l.fstype, "fuse") && strings.HasPrefix(l.source, "/") {
		dirs = strings.Split(l.source, ":")
	}
	for option := range strings.SplitSeq(l.options, ",") {
		name, value, _ := strings.Cut(option, "=")
		if slices.Contains([]string{"lowerdir", "upperdir", "workdir"}, name) {
			dirs = append(dirs, strings.Split(unescape(value), ":")...)
		}
	}
	return dirs
}
