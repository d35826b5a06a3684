package publish

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/layer"
)

// tree is a root file system as the uncompressed tar of a layer.
type tree interface {
	io.ReadCloser
	// Architecture tells what the init of the tree runs on, "" if it has none. It is asked after the last byte was
	// read.
	Architecture() (string, error)
}

func openTree(name string, epoch *time.Time) (tree, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("cannot pack %s: %w", name, pathless(err))
	}
	if info.IsDir() {
		return openDirectory(name, epoch)
	}
	return openTarball(name, epoch)
}

// pathless returns what went wrong with a file that the message names already.
func pathless(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// inits is where a bootable tree has its init, also where /usr is not merged, or the tree is a tar file, whose links
// are not followed.
var inits = slices.Concat(image.Inits, []string{"lib/systemd/systemd", "usr/sbin/init"})

// pseudo are directories the kernel and PID 1 fill. They are needed as mount points; what a build left in them is not
// part of the image.
var pseudo = []string{"proc", "sys", "run"}

// inPseudo says whether a path, relative to the root, is below one of them.
func inPseudo(name string) bool {
	top, rest, _ := strings.Cut(name, "/")
	return rest != "" && slices.Contains(pseudo, top)
}

// checkName refuses what would mean something else in a layer.
func checkName(name string) error {
	if strings.HasPrefix(path.Base(name), layer.WhiteoutPrefix) {
		return fmt.Errorf("%w: %q is the name of a deletion in an image layer", ErrTree, name)
	}
	return nil
}
