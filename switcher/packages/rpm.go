package packages

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"

	"github.com/updatectl/updatectl/switcher/rootfs"
)

// rpm's database holds the header of each package as one value, in a file of SQLite or in one of rpm's own (ndb). The
// reader that exists for Go (knqyf263/go-rpmdb) needs a SQLite translated from C, five megabytes, and trusts what it
// reads: lengths in the file are allocated unchecked, in goroutines, where no caller can recover from a panic. A root
// needs five values of each header, so they are read here.

// rpmDirs are where distributions keep the database.
var rpmDirs = []string{"/usr/lib/sysimage/rpm", "/usr/share/rpm", "/var/lib/rpm"}

// errBerkeley is about the format that rpm wrote before 4.16. No distribution with a systemd that updatectl needs does.
var errBerkeley = errors.New("it is a Berkeley DB, which rpm has not written since 2020; " +
	"`rpmdb --rebuilddb` converts it")

// readRPM reads the first database of rpm that there is.
func readRPM(root rootfs.Dir) ([]Package, error) {
	for _, dir := range rpmDirs {
		for _, name := range []string{"rpmdb.sqlite", "Packages.db", "Packages"} {
			file := path.Join(dir, name)
			list, err := openRPM(root, file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, unreadable(file, err)
			}
			return list, nil
		}
	}
	return nil, nil
}

// openRPM returns the packages in a file. The error is an fs.ErrNotExist if there is no such file.
func openRPM(root rootfs.Dir, file string) ([]Package, error) {
	f, err := root.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch path.Base(file) {
	case "rpmdb.sqlite":
		if text, err := root.ReadFile(file+"-wal", 1); err != nil && !errors.Is(err, fs.ErrNotExist) || len(text) > 0 {
			return nil, errors.New("the changes in rpmdb.sqlite-wal are not merged into it")
		}
		return listRPM(f, st.Size(), readSQLite)
	case "Packages.db":
		return listRPM(f, st.Size(), readNDB)
	}
	return nil, errBerkeley
}

// listRPM returns the packages whose headers read visits.
func listRPM(f io.ReaderAt, size int64,
	read func(io.ReaderAt, int64, func([]byte) error) error) (list []Package, err error) {
	err = read(f, size, func(header []byte) error {
		p, err := parseRPM(header)
		if err == nil {
			list, err = add(list, p)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// maxHeader is how many bytes of a header are read. What follows are scripts and lists of files: a header is sorted by
// tags, and those that are needed here are the first.
const maxHeader = 256 << 10

// Tags and types of rpm (rpmtag.h).
const (
	tagName, tagVersion, tagRelease, tagEpoch, tagSize, tagArch, tagLongSize = 1000, 1001, 1002, 1003, 1009, 1022, 5009
	typeInt32, typeInt64, typeString                                         = 4, 5, 6
)

// parseRPM reads the beginning of a header: the number of entries and the length of the data, the entries, the data.
func parseRPM(header []byte) (Package, error) {
	const lengths, entrySize = 8, 16
	if len(header) < lengths {
		return Package{}, errors.New("the header of a package is too short")
	}
	entries := int64(binary.BigEndian.Uint32(header))
	start := lengths + entries*entrySize
	if start > int64(len(header)) {
		return Package{}, fmt.Errorf("the header of a package has %d entries", entries)
	}
	value := map[uint32]string{}
	for at := lengths; at < int(start); at += entrySize {
		entry := header[at : at+entrySize]
		tag, kind := binary.BigEndian.Uint32(entry), binary.BigEndian.Uint32(entry[4:])
		offset := start + int64(binary.BigEndian.Uint32(entry[8:]))
		switch tag {
		case tagName, tagVersion, tagRelease, tagEpoch, tagSize, tagArch, tagLongSize:
			if offset < int64(len(header)) {
				value[tag] = valueOf(header[offset:], kind)
			}
		}
	}
	return packageOf(value)
}

// valueOf returns a value at the beginning of data as text, "" if it is not there as a whole.
func valueOf(data []byte, kind uint32) string {
	switch {
	case kind == typeInt32 && len(data) >= 4:
		return strconv.FormatUint(uint64(binary.BigEndian.Uint32(data)), 10)
	case kind == typeInt64 && len(data) >= 8:
		return strconv.FormatUint(binary.BigEndian.Uint64(data), 10)
	case kind == typeString:
		if end := bytes.IndexByte(data[:min(len(data), maxWord+1)], 0); end >= 0 {
			return string(data[:end])
		}
	}
	return ""
}

// packageOf returns the package that the values of a header describe.
func packageOf(value map[uint32]string) (Package, error) {
	if value[tagVersion] == "" || value[tagRelease] == "" {
		return Package{}, fmt.Errorf("the header of the package %.40q has no version", value[tagName])
	}
	p := Package{Format: RPM, Name: value[tagName], Architecture: value[tagArch],
		Version: value[tagVersion] + "-" + value[tagRelease]}
	if value[tagEpoch] != "" {
		p.Version = value[tagEpoch] + ":" + p.Version
	}
	large := value[tagLongSize] // instead of the other, from four gigabytes on
	if large == "" {
		large = value[tagSize]
	}
	var err error
	p.Bytes, err = size(large, 1)
	return p, err
}
