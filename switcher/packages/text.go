package packages

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Databases that are text: those of dpkg, apk and pacman.

const (
	maxDatabase = 64 << 20 // bytes of a database in one file; that of a desktop has five megabytes
	maxEntry    = 1 << 20  // bytes of a file about one package; real ones have a few thousand
)

// readDpkg reads dpkg's database or, in images without dpkg, the files in its place, one for each package.
func readDpkg(root rootfs.Dir) ([]Package, error) {
	const status, parts = "/var/lib/dpkg/status", "/var/lib/dpkg/status.d"
	list, err := readFile(root, status, parseDpkg)
	if err != nil {
		return nil, err
	}
	for _, name := range root.Names(parts) {
		if path.Ext(name) == ".md5sums" {
			continue
		}
		of, err := readFile(root, path.Join(parts, name), parseDpkg)
		if err != nil {
			return nil, err
		}
		if list = append(list, of...); len(list) > maxPackages {
			return nil, unreadable(parts, errors.New("there are too many packages"))
		}
	}
	return list, nil
}

// readAPK reads apk's database, which moved below /usr.
func readAPK(root rootfs.Dir) ([]Package, error) {
	for _, file := range []string{"/usr/lib/apk/db/installed", "/lib/apk/db/installed"} {
		if list, err := readFile(root, file, parseAPK); err != nil || list != nil {
			return list, err
		}
	}
	return nil, nil
}

// readPacman reads pacman's database, a directory for each package.
func readPacman(root rootfs.Dir) ([]Package, error) {
	const local = "/var/lib/pacman/local"
	var list []Package
	for _, name := range root.Names(local) {
		file := path.Join(local, name, "desc")
		text, err := root.ReadFile(file, maxEntry)
		if errors.Is(err, fs.ErrNotExist) || name == "ALPM_DB_VERSION" {
			continue
		}
		if err == nil {
			var p Package
			if p, err = parsePacman(string(text)); err == nil {
				list, err = add(list, p)
			}
		}
		if err != nil {
			return nil, unreadable(file, err)
		}
	}
	return list, nil
}

// readFile parses a database in one file; a file that does not exist has no packages.
func readFile(root rootfs.Dir, file string, parse func(string) ([]Package, error)) ([]Package, error) {
	text, err := root.ReadFile(file, maxDatabase)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var list []Package
	if err == nil {
		list, err = parse(string(text))
	}
	if err != nil {
		return nil, unreadable(file, err)
	}
	return list, nil
}

// parseDpkg reads paragraphs as in dpkg's status. What has only its configuration left is not installed.
func parseDpkg(text string) (list []Package, err error) {
	err = paragraphs(text, func(field map[string]string) error {
		if state := strings.Fields(field["Status"]); len(state) == 3 &&
			slices.Contains([]string{"not-installed", "config-files"}, state[2]) {
			return nil
		}
		kib, err := size(field["Installed-Size"], 1<<10)
		if err != nil {
			return err
		}
		list, err = add(list, Package{Dpkg, field["Package"], field["Architecture"], field["Version"], kib})
		return err
	}, "Package", "Architecture", "Version", "Status", "Installed-Size")
	if err != nil {
		return nil, err
	}
	return list, nil
}

// parseAPK reads paragraphs as in apk's installed.
func parseAPK(text string) (list []Package, err error) {
	err = paragraphs(text, func(field map[string]string) error {
		bytes, err := size(field["I"], 1)
		if err != nil {
			return err
		}
		list, err = add(list, Package{APK, field["P"], field["A"], field["V"], bytes})
		return err
	}, "P", "A", "V", "I")
	if err != nil {
		return nil, err
	}
	return list, nil
}

// paragraphs calls visit with the values of some fields in each paragraph of "Name: value" lines.
func paragraphs(text string, visit func(map[string]string) error, names ...string) error {
	field, any := map[string]string{}, false
	end := func() error {
		if !any {
			return nil
		}
		err := visit(field)
		field, any = map[string]string{}, false
		return err
	}
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			if err := end(); err != nil {
				return err
			}
			continue
		}
		any = true
		if name, value, ok := strings.Cut(line, ":"); ok && slices.Contains(names, name) {
			field[name] = strings.TrimSpace(value)
		}
	}
	return end()
}

// parsePacman reads a desc: a line %NAME%, the value in the next lines, an empty line.
func parsePacman(text string) (Package, error) {
	field, name := map[string]string{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "%") && strings.HasSuffix(line, "%") {
			name = line
		} else if field[name] == "" {
			field[name] = line
		}
	}
	bytes, err := size(field["%SIZE%"], 1)
	return Package{Pacman, field["%NAME%"], field["%ARCH%"], field["%VERSION%"], bytes}, err
}

// size returns a number of units in bytes; 0 if there is none.
func size(number string, unit int64) (int64, error) {
	if number == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err == nil && (n < 0 || n > maxSize/unit) {
		err = errors.New("the size of a package cannot be: " + number)
	}
	return n * unit, err
}
