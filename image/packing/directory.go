package packing

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/opencontainers/umoci/oci/layer"
	"github.com/vbatts/go-mtree"
	"github.com/vbatts/go-mtree/pkg/govis"

	"github.com/updatectl/updatectl/arch"
	"github.com/updatectl/updatectl/durable"
)

// directory is a root directory that umoci writes as a tar, with modes, owners, times in seconds, hard links, device
// nodes and xattrs. umoci leaves out security.selinux, as it would be that of the build machine.
type directory struct {
	io.ReadCloser
	path string
}

func openDirectory(path string, epoch *time.Time) (*directory, error) {
	files, err := listFiles(path)
	if err != nil {
		return nil, fmt.Errorf("cannot pack %s: %w", path, err)
	}
	tar, err := layer.GenerateLayer(path, files, &layer.RepackOptions{SourceDateEpoch: epoch})
	if err != nil {
		return nil, fmt.Errorf("cannot pack %s: %w", path, err)
	}
	return &directory{tar, path}, nil
}

// listFiles lists the contents of the layer as changes of an empty tree, which is the form that umoci expects. Sockets
// are left out: a tar cannot contain them, and their servers make them again.
func listFiles(root string) ([]mtree.InodeDelta, error) {
	var top syscall.Stat_t
	if err := syscall.Stat(root, &top); err != nil {
		return nil, err
	}
	var all mtree.DirectoryHierarchy
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case inPseudo(name) && entry.IsDir():
			return fs.SkipDir
		case inPseudo(name), entry.Type() == fs.ModeSocket:
			return nil
		}
		if err := checkFile(name, entry, top.Dev); err != nil {
			return err
		}
		encoded, err := govis.Vis(name, mtree.DefaultVisFlags)
		all.Entries = append(all.Entries, mtree.Entry{Name: encoded, Type: mtree.FullType})
		return err
	})
	if err != nil {
		return nil, err
	}
	return mtree.Compare(nil, &all, nil)
}

// checkFile refuses a file that a layer made by umoci cannot contain, or would contain wrongly.
func checkFile(name string, entry fs.DirEntry, device uint64) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	// umoci recognises hard links by their inode number only.
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Dev != device {
		return fmt.Errorf("%w: /%s is on another file system: unmount it first", ErrTree, name)
	}
	return checkName(name)
}

// Architecture returns the GOARCH of the init in the directory, or "".
func (d *directory) Architecture() (string, error) {
	for _, name := range inits {
		path, err := securejoin.SecureJoin(d.path, name)
		if err != nil {
			return "", err
		}
		f, err := durable.OpenRegular(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, durable.ErrNotRegular) {
			continue
		}
		if err != nil {
			return "", err
		}
		defer f.Close()
		head := make([]byte, arch.HeadSize)
		n, err := io.ReadFull(f, head)
		if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
			return "", err
		}
		if goarch := arch.Of(head[:n]); goarch != "" {
			return goarch, nil
		}
	}
	return "", nil
}
