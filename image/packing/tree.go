package packing

import (
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/layer"
)

// tree is a root file system as an uncompressed layer.
type tree interface {
	io.ReadCloser
	// Architecture returns the GOARCH of the init of the tree, or "" if there is none. It is called when all bytes
	// have been read.
	Architecture() (string, error)
}

func openTree(name string, epoch *time.Time) (tree, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("cannot pack %s: %w", name, failure.Pathless(err))
	}
	if info.IsDir() {
		return openDirectory(name, epoch)
	}
	return openTarball(name, epoch)
}

// inits lists where the init of a tree can be. It includes trees without a merged /usr, and tar files, in which links
// are not followed.
var inits = slices.Concat(image.Inits, []string{"lib/systemd/systemd", "usr/sbin/init"})

// pseudo lists the directories that the kernel and systemd fill. They are needed as mount points, but their contents
// are not part of the image.
var pseudo = []string{"proc", "sys", "run"}

// inPseudo reports whether a path, relative to the root, is below one of them.
func inPseudo(name string) bool {
	top, rest, _ := strings.Cut(name, "/")
	return rest != "" && slices.Contains(pseudo, top)
}

// checkName refuses names that hosts refuse, or that have a special meaning in a layer.
func checkName(name string) error {
	if err := layer.CheckPath("/" + name); err != nil {
		return fmt.Errorf("%w: hosts would refuse it: %v", ErrTree, err)
	}
	if strings.HasPrefix(path.Base(name), layer.WhiteoutPrefix) {
		return fmt.Errorf("%w: in an image layer, the name %q stands for a deletion", ErrTree, name)
	}
	return nil
}
