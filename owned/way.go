package owned

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxLinks is how many links the kernel follows on the way to a file.
const maxLinks = 40

// step is one name on the way to a path: a directory, a link, or what is at the path.
type step struct {
	in, path  string      // the directory, and the name in it, as paths in the root
	dir, file fs.FileInfo // the same; file is nil where nothing is
}

// follow calls see for each name on the way to an absolute path in a root, as the kernel follows it. Each directory is
// looked at before what is in it, so nobody can change what was found. What does not exist is an fs.ErrNotExist or
// ENOTDIR.
func follow(root, path string, see func(step) error) error {
	at, rest, links := "/", split(path), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		s := step{in: at, path: filepath.Join(at, name)}
		var err error
		if s.dir, err = os.Lstat(filepath.Join(root, s.in)); err != nil {
			return err
		}
		file, err := os.Lstat(filepath.Join(root, s.path))
		if err != nil && !isAbsent(err) {
			return err
		}
		if err == nil {
			s.file = file
		}
		if serr := see(s); serr != nil || err != nil {
			return errors.Join(serr, err)
		}
		if file.Mode()&fs.ModeSymlink == 0 {
			at = s.path
			continue
		}
		target, err := os.Readlink(filepath.Join(root, s.path))
		if err != nil {
			return err
		}
		if links++; links > maxLinks {
			return &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = slices.Concat(split(target), rest)
	}
	return nil
}

// split returns the components of a path.
func split(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == "." })
}

// isAbsent reports whether an error means that nothing is at a path.
func isAbsent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }

// Redirect returns why others than root can make a path of a root lead elsewhere, and what to do about it; "" if they
// cannot: it is below a directory of theirs, or behind a link of theirs. What is at the path may be anybody's, and what
// does not exist leads nowhere.
//
// Unlike [Check], it lets a group write: on some hosts, /var/log is root:syslog 775 and /var/local root:staff 2775, and
// a refusal of what is below them would keep these hosts from updates.
func Redirect(root, path string) (why string, err error) {
	found := errors.New("found")
	err = follow(root, path, func(s step) error {
		if why = whoExchanges(s); why != "" {
			return found
		}
		return nil
	})
	if why != "" || err != nil && isAbsent(err) {
		err = nil
	}
	return why, err
}

// whoExchanges returns why others than root can exchange a name in its directory, or the target of a link; "" if they
// cannot.
func whoExchanges(s step) string {
	if !s.dir.IsDir() {
		return ""
	}
	// What is missing may be made by others; in a sticky directory, only its owner can exchange a file.
	theirs := s.file == nil || otherOwner(s.file) != 0
	sticky := s.dir.Mode()&fs.ModeSticky != 0 && !theirs
	switch w := WriterOf(uint32(s.dir.Mode().Perm()), otherOwner(s.dir), 0, false); { // a group may write
	case w == User:
		return fmt.Sprintf("%s, which it is in, belongs to user %d, who can put a link in its place; name a directory that "+
			"only root can write in, such as one below /srv, or have root own %[1]s", s.in, otherOwner(s.dir))
	case w == Everybody && !sticky:
		return fmt.Sprintf("everybody can write in %s, which it is in, and put a link in its place; name a directory that "+
			"only root can write in, such as one below /srv", s.in)
	case theirs && s.file != nil && s.file.Mode()&fs.ModeSymlink != 0:
		return fmt.Sprintf("%s is a link of user %d, who can make it lead anywhere; name the directory that it "+
			"leads to", s.path, otherOwner(s.file))
	}
	return ""
}
