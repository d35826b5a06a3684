package packing

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

	"github.com/updatectl/updatectl/arch"
	"github.com/updatectl/updatectl/image/failure"
)

// tarBuffer is how many bytes are read at once, because archive/tar reads small pieces.
const tarBuffer = 1 << 20

// tarball is a tar file of a root directory, such as mmdebstrap or "docker export" write. It is rewritten entry by
// entry, in its order, without unpacking it, so no privileges are needed.
type tarball struct {
	io.ReadCloser
	heads map[string][]byte // the first bytes of programs that may be the init
}

func openTarball(name string, epoch *time.Time) (*tarball, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot pack %s: %w", name, failure.Pathless(err))
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
			return fmt.Errorf("%w: it is not an uncompressed tar file", ErrTree)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		h, err = cleanHeader(h, epoch)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(h.Name, "/")
		if inPseudo(name) {
			continue
		}
		if seen[name] {
			return fmt.Errorf("%w: it contains %q twice", ErrTree, name)
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
		return fmt.Errorf("%w: the tar file is incomplete", ErrTree)
	case len(seen) == 0:
		return fmt.Errorf("%w: the tar file is empty", ErrTree)
	}
	return out.Close()
}

// endSeen notices the end of a file. The end of a complete tar file is not reached, because two empty blocks come
// before it; archive/tar accepts both as the end.
type endSeen struct {
	r    io.Reader
	seen bool
}

func (e *endSeen) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.seen = e.seen || err == io.EOF
	return n, err
}

// copy copies the content of an entry, and keeps the first bytes of a program that may be the init.
func (t *tarball) copy(out io.Writer, in io.Reader, name string) error {
	for _, init := range inits {
		if name == init {
			head := make([]byte, arch.HeadSize)
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

// The PAX records of what classic tar headers lack.
const (
	paxXattr   = "SCHILY.xattr."
	paxACL     = "SCHILY.acl." // text with user names, which no reader of layers understands
	paxSELinux = "RHT.security.selinux"
)

// cleanHeader returns the header with only what an image keeps.
func cleanHeader(h *tar.Header, epoch *time.Time) (*tar.Header, error) {
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
			return nil, fmt.Errorf("%w: %q has an ACL as text: make the tar with --xattrs --xattrs-include='*' and "+
				"without --acls", ErrTree, c.Name)
		}
	}
	return c, errors.Join(checkName(c.Name), cleanKind(c))
}

// cleanKind cleans what depends on the type of the file.
func cleanKind(c *tar.Header) error {
	switch c.Typeflag {
	case tar.TypeReg, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	case tar.TypeGNUSparse:
		c.Typeflag = tar.TypeReg // its content is read without holes
	case tar.TypeDir:
		if c.Name != "." {
			c.Name += "/"
		}
	case tar.TypeLink:
		c.Linkname = strings.TrimPrefix(path.Clean("/"+c.Linkname), "/")
		if inPseudo(c.Linkname) && !inPseudo(c.Name) {
			return fmt.Errorf("%w: %q is a hard link to %q, which is left out", ErrTree, c.Name, c.Linkname)
		}
	default:
		return fmt.Errorf("%w: %q has the unknown type %q", ErrTree, c.Name, c.Typeflag)
	}
	return nil
}

// Architecture returns the GOARCH of the init in the tar, or "". Call it when the tar has been read.
func (t *tarball) Architecture() (string, error) {
	for _, name := range inits {
		if goarch := arch.Of(t.heads[name]); goarch != "" {
			return goarch, nil
		}
	}
	return "", nil
}
