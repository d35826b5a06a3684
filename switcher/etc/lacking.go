package etc

import (
	"bytes"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/listing"
	"github.com/updatectl/updatectl/switcher/etc/needs"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Lacking returns what this host's files name for logins, packet filters and its network, and the new root lacks, each
// with the file that names it and, where the host knows it, the package: with such a root, a way in would close, or one
// would open. The errors are those of [Plan].
func Lacking(in Inputs) ([]string, error) {
	out, err := read(in)
	if err != nil {
		return nil, fmt.Errorf("cannot plan the new /etc: %w", err)
	}
	before := in.Host
	if in.Old != "" {
		before = filepath.Dir(in.Old)
	}
	image := rootfs.Dir(filepath.Dir(in.Next))
	texts, units := out.access(in, image)
	return needs.Lacking(image, texts, units, rootfs.Dir(before)), nil
}

// access returns the host's files in the outcome that package needs judges, and the units that stay enabled. What the
// image has in the same way is its own business.
func (out *outcome) access(in Inputs, image rootfs.Dir) (texts map[string][]byte, units []string) {
	texts = map[string][]byte{}
	for name, p := range out.paths {
		if p.side != current || p.entry.Kind == listing.Dir {
			continue
		}
		if needs.Units.Has(name) && !slices.Contains(units, path.Base(name)) {
			units = append(units, path.Base(name))
		}
		own := path.Join("/etc", name)
		if !needs.Files.Has(name) || strings.HasPrefix(name, "pam.d/") && !image.Exists(own) ||
			strings.HasPrefix(name, "ssh/") && !image.Exists("/usr/sbin/sshd") {
			continue
		}
		text, _ := listing.ReadText(in.Current, name, rootfs.MaxConfig)
		if p.entry.Kind == listing.Link && in.Host != "" { // of authselect
			text, _ = rootfs.Dir(in.Host).ReadFile(own, rootfs.MaxConfig)
		}
		if same, err := image.ReadFile(own, rootfs.MaxConfig); err != nil || !bytes.Equal(same, text) {
			texts[name] = text
		}
	}
	slices.Sort(units)
	return texts, units
}
