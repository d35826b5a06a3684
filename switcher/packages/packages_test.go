package packages

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/switcher/rootfs"
)

// A part of dpkg's status of Debian 13: an installed package, one that was removed with its configuration left, one
// half configured, and one for another architecture.
const dpkgStatus = `Package: openssl
Status: install ok installed
Priority: optional
Section: utils
Installed-Size: 2426
Maintainer: Debian OpenSSL Team <pkg-openssl-devel@alioth-lists.debian.net>
Architecture: amd64
Multi-Arch: foreign
Version: 3.5.4-1~deb13u1
Conffiles:
 /etc/ssl/openssl.cnf 6cb57b1cc9e3aa61d9b0d9ee5a8c5d8f
Description: Secure Sockets Layer toolkit - cryptographic utility
 This package is part of the OpenSSL project's implementation of the SSL
 .
 Version: of the protocol

Package: nginx-common
Status: deinstall ok config-files
Installed-Size: 1
Architecture: all
Version: 1.26.3-3

Package: man-db
Status: install ok half-configured
Installed-Size: 2985
Architecture: amd64
Version: 2.13.1-1
Config-Version: 2.13.1-1

Package: libc6
Status: install ok installed
Installed-Size: 12000
Architecture: i386
Version: 2.41-12
`

// A part of apk's installed of Alpine 3.22.
const apkInstalled = `C:Q1FSgrkyCwOg/GRaajNZFgxGFsq+g=
P:musl
V:1.2.5-r10
A:x86_64
S:409274
I:667648
T:the musl c library (libc) implementation
F:lib
R:ld-musl-x86_64.so.1
a:0:0:755

C:Q1
P:busybox
V:1.37.0-r18
A:x86_64
I:962560
`

const pacmanDesc = `%NAME%
openssl

%VERSION%
3.6.0-1

%BASE%
openssl

%DESC%
The Open Source toolkit for Secure Sockets Layer and Transport Layer Security

%ARCH%
x86_64

%SIZE%
9961472

%DEPENDS%
glibc
`

// rpmPackages are in testdata/rpmdb.sqlite.gz, which rpm 4.18 wrote. The header of tzdata is longer than a page.
var rpmPackages = []Package{
	{RPM, "kernel-core", "x86_64", "6.14.0-1.fc42", 2000}, {RPM, "kernel-core", "x86_64", "6.15.1-1.fc42", 2100},
	{RPM, "openssl", "x86_64", "1:3.2.4-1.fc42", 1000}, {RPM, "tzdata", "noarch", "2025a-1.fc42", 30},
}

// rpmDatabase returns the database of rpm in testdata.
func rpmDatabase(t testing.TB) []byte {
	t.Helper()
	f, err := os.Open("testdata/rpmdb.sqlite.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	db, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// ndbDatabase returns the same packages as rpm's own format has them.
func ndbDatabase(t testing.TB) []byte {
	t.Helper()
	db := rpmDatabase(t)
	words := func(numbers ...uint32) (b []byte) {
		for _, n := range numbers {
			b = binary.LittleEndian.AppendUint32(b, n)
		}
		return b
	}
	slots := words(ndbMagic, 0, 1, 1, 0, 0, 0, 0)
	var blobs []byte
	count := uint32(0)
	err := readSQLite(bytes.NewReader(db), int64(len(db)), func(header []byte) error {
		count++
		slots = append(slots, words(ndbSlotMagic, count, uint32(ndbPage+len(blobs))/ndbBlock, 0)...)
		blobs = append(append(blobs, words(ndbBlobMagic, count, 0, uint32(len(header)))...), header...)
		blobs = append(blobs, make([]byte, ndbBlock-len(blobs)%ndbBlock)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for len(slots) < ndbPage {
		slots = append(slots, words(ndbSlotMagic, 0, 0, 0)...)
	}
	return append(slots, blobs...)
}

// treeOf returns a root with files.
func treeOf(t *testing.T, files map[string]string) rootfs.Dir {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return rootfs.Dir(root)
}

// TestRead: each database, where distributions keep it.
func TestRead(t *testing.T) {
	dpkg := []Package{{Dpkg, "libc6", "i386", "2.41-12", 12000 << 10}, {Dpkg, "man-db", "amd64", "2.13.1-1", 2985 << 10},
		{Dpkg, "openssl", "amd64", "3.5.4-1~deb13u1", 2426 << 10}}
	apk := []Package{{APK, "busybox", "x86_64", "1.37.0-r18", 962560}, {APK, "musl", "x86_64", "1.2.5-r10", 667648}}
	sqlite, ndb := string(rpmDatabase(t)), string(ndbDatabase(t))
	for name, c := range map[string]struct {
		files map[string]string
		want  []Package
	}{
		"none":       {map[string]string{"usr/lib/os-release": "ID=own\n"}, nil},
		"dpkg":       {map[string]string{"var/lib/dpkg/status": dpkgStatus}, dpkg},
		"dpkg empty": {map[string]string{"var/lib/dpkg/status": ""}, nil},
		"distroless": {map[string]string{"var/lib/dpkg/status.d/tzdata": "Package: tzdata\nVersion: 2025b-0\n" +
			"Architecture: all\nInstalled-Size: 1\n", "var/lib/dpkg/status.d/tzdata.md5sums": "0 usr/share/x\n"},
			[]Package{{Dpkg, "tzdata", "all", "2025b-0", 1 << 10}}},
		"rpm":         {map[string]string{"usr/lib/sysimage/rpm/rpmdb.sqlite": sqlite}, rpmPackages},
		"rpm in /var": {map[string]string{"var/lib/rpm/rpmdb.sqlite": sqlite}, rpmPackages},
		"rpm-ostree":  {map[string]string{"usr/share/rpm/rpmdb.sqlite": sqlite}, rpmPackages},
		"ndb":         {map[string]string{"usr/lib/sysimage/rpm/Packages.db": ndb}, rpmPackages},
		"apk":         {map[string]string{"lib/apk/db/installed": apkInstalled}, apk},
		"apk in /usr": {map[string]string{"usr/lib/apk/db/installed": apkInstalled}, apk},
		"pacman": {map[string]string{"var/lib/pacman/local/ALPM_DB_VERSION": "9\n",
			"var/lib/pacman/local/openssl-3.6.0-1/desc": pacmanDesc},
			[]Package{{Pacman, "openssl", "x86_64", "3.6.0-1", 9961472}}},
		"two": {map[string]string{"var/lib/dpkg/status": dpkgStatus, "lib/apk/db/installed": apkInstalled},
			[]Package{apk[0], dpkg[0], dpkg[1], apk[1], dpkg[2]}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Read(treeOf(t, c.files))
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("it is %v, %v, want %v", got, err, c.want)
			}
		})
	}
}

// TestReadDamaged: what cannot be read is an error that names the file. Another database is listed all the same.
func TestReadDamaged(t *testing.T) {
	for name, c := range map[string]struct{ file, text, why string }{
		"no version":    {"var/lib/dpkg/status", "Package: x\n", "no version"},
		"size":          {"var/lib/dpkg/status", "Package: x\nVersion: 1\nInstalled-Size: -1\n", "cannot be"},
		"huge size":     {"lib/apk/db/installed", "P:x\nV:1\nI:9223372036854775807\n", "cannot be"},
		"long":          {"lib/apk/db/installed", "P:" + strings.Repeat("x", maxWord+1) + "\nV:1\n", "more than 512 bytes"},
		"pacman":        {"var/lib/pacman/local/x-1/desc", "%NAME%\nx\n", "no version"},
		"no sqlite":     {"var/lib/rpm/rpmdb.sqlite", "SQLite", errSQLite.Error()},
		"cut off":       {"var/lib/rpm/rpmdb.sqlite", string(rpmDatabase(t)[:8192]), errSQLite.Error()},
		"no ndb":        {"var/lib/rpm/Packages.db", strings.Repeat("x", 4096), "not a package database"},
		"ndb cut off":   {"var/lib/rpm/Packages.db", string(ndbDatabase(t)[:5000]), "EOF"},
		"Berkeley":      {"var/lib/rpm/Packages", "x", "Berkeley DB"},
		"not merged":    {"var/lib/rpm/rpmdb.sqlite-wal", "x", "not merged"},
		"not a file":    {"var/lib/dpkg/status/x", "", "not a regular file"},
		"rpm elsewhere": {"usr/share/rpm/Packages", "", "/usr/share/rpm/Packages"},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{c.file: c.text}
			if name == "not merged" {
				files["var/lib/rpm/rpmdb.sqlite"] = string(rpmDatabase(t))
			}
			if !strings.HasPrefix(c.file, "lib/apk") {
				files["lib/apk/db/installed"] = apkInstalled
			}
			got, err := Read(treeOf(t, files))
			if err == nil || !strings.Contains(err.Error(), c.why) || !strings.Contains(err.Error(), "package database") {
				t.Errorf("the error is %v, want %q", err, c.why)
			}
			if files["lib/apk/db/installed"] == apkInstalled && len(got) != 2 {
				t.Errorf("the other packages are %v", got)
			}
		})
	}
}

// TestReadStaysInside: a link in an image does not lead to the database of the host that reads it.
func TestReadStaysInside(t *testing.T) {
	outside := treeOf(t, map[string]string{"status": dpkgStatus})
	root := treeOf(t, map[string]string{"var/lib/dpkg/x": ""})
	if err := os.Symlink(string(outside)+"/status", filepath.Join(string(root), "var/lib/dpkg/status")); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(root); err != nil || got != nil {
		t.Errorf("it is %v, %v", got, err)
	}
}

// TestCompare: by the rules of each package manager, and nothing is guessed where there are no rules.
func TestCompare(t *testing.T) {
	old := []Package{
		{Dpkg, "base-files", "amd64", "13.8", 100}, {Dpkg, "bash", "amd64", "5.2.37-2", 10},
		{Dpkg, "gone", "all", "1", 5}, {Dpkg, "rc", "amd64", "1.0", 1}, {Dpkg, "epoch", "amd64", "9.0", 1},
		{Dpkg, "lib", "amd64", "1.9", 1}, {Dpkg, "lib", "i386", "1.9", 1}, {Dpkg, "odd", "all", "not a version", 1},
		{Dpkg, "moved", "amd64", "1.0", 7},
		{RPM, "kernel-core", "x86_64", "6.14.0-1", 1}, {RPM, "kernel-core", "x86_64", "6.15.1-1", 1},
		{RPM, "caret", "x86_64", "1.0-1", 1}, {APK, "musl", "x86_64", "1.2.5-r9", 1},
	}
	fresh := []Package{
		{Dpkg, "base-files", "amd64", "13.8", 100}, {Dpkg, "bash", "amd64", "5.2.37-2+b5", 12},
		{Dpkg, "new", "all", "1", 3}, {Dpkg, "rc", "amd64", "1.0~rc1", 1}, {Dpkg, "epoch", "amd64", "1:1.0", 1},
		{Dpkg, "lib", "amd64", "1.10", 1}, {Dpkg, "lib", "i386", "1.10", 1}, {Dpkg, "odd", "all", "2", 1},
		{Dpkg, "moved", "all", "1.1", 6},
		{RPM, "kernel-core", "x86_64", "6.15.1-1", 1}, {RPM, "kernel-core", "x86_64", "6.16.0-1", 1},
		{RPM, "caret", "x86_64", "1.0^git1-1", 1}, {APK, "musl", "x86_64", "1.2.5-r10", 1},
	}
	want := Difference{
		Added: []Package{{Dpkg, "new", "all", "1", 3}}, Removed: []Package{{Dpkg, "gone", "all", "1", 5}},
		Upgraded: []Change{
			{Dpkg, "bash", "amd64", "5.2.37-2", "5.2.37-2+b5", 2}, {RPM, "caret", "x86_64", "1.0-1", "1.0^git1-1", 0},
			{Dpkg, "epoch", "amd64", "9.0", "1:1.0", 0}, {RPM, "kernel-core", "x86_64", "6.14.0-1", "6.16.0-1", 0},
			{Dpkg, "lib", "amd64", "1.9", "1.10", 0}, {Dpkg, "lib", "i386", "1.9", "1.10", 0},
			{Dpkg, "moved", "all", "1.0", "1.1", -1},
		},
		Downgraded: []Change{{Dpkg, "rc", "amd64", "1.0", "1.0~rc1", 0}},
		Changed: []Change{{APK, "musl", "x86_64", "1.2.5-r9", "1.2.5-r10", 0},
			{Dpkg, "odd", "all", "not a version", "2", 0}},
		Installed: len(fresh), Bytes: -1,
	}
	if got := Compare(old, fresh); !reflect.DeepEqual(got, want) {
		t.Errorf("it is\n%+v, want\n%+v", got, want)
	}
	if got := Compare(old, old); !got.Empty() || got.Bytes != 0 {
		t.Errorf("a root differs from itself: %+v", got)
	}
}

// TestCompareKernels: a kernel that was added, and one that went beside it, count for themselves.
func TestCompareKernels(t *testing.T) {
	kernel := func(version string) Package { return Package{RPM, "kernel-core", "x86_64", version, 1} }
	got := Compare([]Package{kernel("1-1"), kernel("2-1")}, []Package{kernel("3-1")})
	if len(got.Added) != 1 || len(got.Removed) != 2 || len(got.Upgraded) != 0 {
		t.Errorf("it is %+v", got)
	}
}

func FuzzDpkg(f *testing.F) {
	f.Add(dpkgStatus)
	f.Fuzz(func(t *testing.T, text string) { checkAll(t, parseDpkg, text) })
}

func FuzzAPK(f *testing.F) {
	f.Add(apkInstalled)
	f.Fuzz(func(t *testing.T, text string) { checkAll(t, parseAPK, text) })
}

func FuzzPacman(f *testing.F) {
	f.Add(pacmanDesc)
	f.Fuzz(func(t *testing.T, text string) {
		checkAll(t, func(text string) ([]Package, error) {
			p, err := parsePacman(text)
			if err != nil {
				return nil, err
			}
			return add(nil, p)
		}, text)
	})
}

// FuzzSQLite and FuzzNDB exchange a part of an intact database, at a place: few others get past its first page.
func FuzzSQLite(f *testing.F) { fuzzRPM(f, rpmDatabase(f), readSQLite) }

func FuzzNDB(f *testing.F) { fuzzRPM(f, ndbDatabase(f), readNDB) }

func FuzzRPMHeader(f *testing.F) {
	db := rpmDatabase(f)
	if err := readSQLite(bytes.NewReader(db), int64(len(db)), func(h []byte) error { f.Add(h); return nil }); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, header []byte) {
		if p, err := parseRPM(header); err == nil && p.Version == "" {
			t.Errorf("no version: %+v", p)
		}
	})
}

func fuzzRPM(f *testing.F, db []byte, read func(io.ReaderAt, int64, func([]byte) error) error) {
	for at := 0; at+4 <= len(db); at += 4096 {
		f.Add(uint(at), db[at:at+4])
		f.Add(uint(at+4), []byte{0xff, 0xff, 0xff, 0xff})
	}
	f.Fuzz(func(t *testing.T, at uint, part []byte) {
		damaged := slices.Clone(db)
		copy(damaged[at%uint(len(db)):], part)
		checkAll(t, func(string) ([]Package, error) {
			return listRPM(bytes.NewReader(damaged), int64(len(damaged)), read)
		}, "")
	})
}

// checkAll asserts that every package of a list is one that can be.
func checkAll(t *testing.T, parse func(string) ([]Package, error), text string) {
	t.Helper()
	list, err := parse(text)
	if err != nil && list != nil {
		t.Errorf("beside the error %v, there are packages", err)
	}
	for _, p := range list {
		if _, err := add(nil, p); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
	Compare(list, list[:len(list)/2])
}
