package publish

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/updatectl/updatectl/image/machine"
)

// tarBuffer is how much is read at once; archive/tar reads in small pieces.
const tarBuffer = 1 << 20

// tarball is a tar file of a root directory, as mmdebstrap or "docker export" write it, rewritten entry by entry: no
// privilege is needed and nothing is unpacked. Its order is kept.
type tarball struct {
	io.ReadCloser
	heads map[string][]byte // the first bytes of what may be the init
}

func openTarball(name string, epoch *time.Time) (*tarball, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot pack %s: %w", name, pathless(err))
	}
	r, w := io.Pipe()
	t := &tarball{ReadCloser: r, heads: make(map[string][]byte)}
	go func() {
		defer f.Close()
		err := t.rewrite(f, w, epoch)
		if err != nil {
			err = fmt.Errorf("cannot pack %s: %w", name, err)
		}
		w.CloseWithError(err)
	}()
	return t, nil
}

func (t *tarball) rewrite(r io.Reader, w io.Writer, epoch *time.Time) error {
	whole := &endSeen{r: bufio.NewReaderSize(r, tarBuffer)}
	in, out := tar.NewReader(whole), tar.NewWriter(w)
	seen := make(map[string]bool)
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: not an uncompressed tar file: %w", ErrTree, err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		h, err = clean(h, epoch)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(h.Name, "/")
		if inPseudo(name) {
			continue
		}
		if seen[name] {
			return fmt.Errorf("%w: %q comes twice", ErrTree, name)
		}
		seen[name] = true
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("%w: %q: %w", ErrTree, name, err)
		}
		if err := t.copy(out, in, name); err != nil {
			return err
		}
	}
	switch {
	case whole.seen:
		return fmt.Errorf("%w: the tar file is cut off", ErrTree)
	case len(seen) == 0:
		return fmt.Errorf("%w: the tar file is empty", ErrTree)
	}
	return out.Close()
}

// endSeen notices the end of a file. A whole tar file is not read up to there: two empty blocks end it before, and
// archive/tar takes either for the end.
type endSeen struct {
	r    io.Reader
	seen bool
}

func (e *endSeen) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.seen = e.seen || err == io.EOF
	return n, err
}

// copy copies the content of one entry and keeps the start of what may be init.
func (t *tarball) copy(out io.Writer, in io.Reader, name string) error {
	for _, init := range inits {
		if name == init {
			head := make([]byte, machine.HeadSize)
			n, err := io.ReadFull(in, head)
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return err
			}
			t.heads[name] = head[:n]
			if _, err := out.Write(head[:n]); err != nil {
				return err
			}
		}
	}
	_, err := io.Copy(out, in)
	return err
}

// Names under which tar programs keep what is not in a classic header.
const (
	paxXattr   = "SCHILY.xattr."
	paxACL     = "SCHILY.acl." // text, with user names: no reader of layers knows it
	paxSELinux = "RHT.security.selinux"
)

// clean returns the header with only what an image keeps of it.
func clean(h *tar.Header, epoch *time.Time) (*tar.Header, error) {
	c := &tar.Header{
		Name:     strings.TrimPrefix(path.Clean("/"+h.Name), "/"),
		Typeflag: h.Typeflag, Linkname: h.Linkname, Size: h.Size,
		Mode: h.Mode, Uid: h.Uid, Gid: h.Gid,
		ModTime:  h.ModTime.Truncate(time.Second),
		Devmajor: h.Devmajor, Devminor: h.Devminor,
		PAXRecords: make(map[string]string),
	}
	if c.Name == "" {
		c.Name = "."
	}
	if epoch != nil && c.ModTime.After(*epoch) {
		c.ModTime = *epoch
	}
	for key, value := range h.PAXRecords {
		switch {
		case strings.HasPrefix(key, paxXattr):
			c.PAXRecords[key] = value
		case key == paxSELinux:
			c.PAXRecords[paxXattr+"security.selinux"] = value
		case strings.HasPrefix(key, paxACL):
			return nil, fmt.Errorf("%w: %q has an ACL in text form: make the tar with --xattrs --xattrs-include='*' and without --acls", ErrTree, c.Name)
		}
	}
	return c, errors.Join(checkName(c.Name), cleanKind(c))
}

// cleanKind settles what depends on the kind of file.
func cleanKind(c *tar.Header) error {
	switch c.Typeflag {
	case tar.TypeReg, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	case tar.TypeGNUSparse:
		c.Typeflag = tar.TypeReg // what is read from it has no holes
	case tar.TypeDir:
		if c.Name != "." {
			c.Name += "/"
		}
	case tar.TypeLink:
		c.Linkname = strings.TrimPrefix(path.Clean("/"+c.Linkname), "/")
		if inPseudo(c.Linkname) && !inPseudo(c.Name) {
			return fmt.Errorf("%w: %q is a link to %q, which is left out", ErrTree, c.Name, c.Linkname)
		}
	default:
		return fmt.Errorf("%w: %q is of unknown type %q", ErrTree, c.Name, c.Typeflag)
	}
	return nil
}

// Architecture tells it from the init that went by.
func (t *tarball) Architecture() (string, error) {
	for _, name := range inits {
		if arch := machine.Of(t.heads[name]); arch != "" {
			return arch, nil
		}
	}
	return "", nil
}
