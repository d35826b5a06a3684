package machine

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/keep"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Units implements [Trees].
func (hostTrees) Units(c EtcChange, own bool, do func(keep.Tree)) error {
	if c.Next.ID == switcher.HostRoot {
		do(keep.Tree{Image: rootfs.Dir(c.Next.HostMount)})
		return nil
	}
	if own {
		return inTree(c.Next, func(tree rootfs.Dir) error {
			do(keep.Tree{Image: tree, Host: rootfs.Dir(filepath.Dir(c.Next.Etc)), Gets: func(string) bool { return true }})
			return nil
		})
	}
	return c.open(func(in etc.Inputs) error {
		report, err := etc.Plan(in)
		if err != nil {
			return err
		}
		do(keep.Tree{Image: rootfs.Dir(strings.TrimSuffix(in.Next, "/etc")), Host: rootfs.Dir(filepath.Dir(c.Current)),
			Gets: report.Gets, Removed: func(name string) bool { return slices.Contains(report.Removed, name) }})
		return nil
	})
}
