package configs

import "fmt"

// DiskFile is a file that an image root needs so that the disks of the host stay usable in it.
type DiskFile struct {
	// Path is where the file is in the root, Text what it has.
	Path, Text string
	// Unless lists files; an image with one of them has what it needs.
	Unless []string
}

// DiskFiles returns the files that are laid over every image, whatever agent it has.
func DiskFiles() []DiskFile {
	const rules, units = "/usr/lib/udev/rules.d/", "/usr/lib/systemd/system/"
	all := []DiskFile{
		{Path: rules + "90-updatectl-dm.rules", Unless: []string{rules + "10-dm.rules", rules + "55-dm.rules"}},
		{Path: rules + "90-updatectl-md.rules", Unless: []string{rules + "63-md-raid-arrays.rules"}},
		{Path: units + "blk-availability.service.d/updatectl.conf"},
		{Path: units + "run-lock.mount.d/updatectl.conf"},
	}
	for i, from := range []string{
		"udev/90-updatectl-dm.rules", "udev/90-updatectl-md.rules",
		"dropins/blk-availability.service.d/updatectl.conf", "dropins/run-lock.mount.d/updatectl.conf",
	} {
		text, err := files.ReadFile(from)
		if err != nil {
			panic(fmt.Sprintf("a shipped file is missing from the binary: %v", err)) // a build error
		}
		all[i].Text = string(text)
	}
	return all
}
