package behind

import (
	"path"
	"strings"
)

// maxUnit bounds a unit file in bytes.
const maxUnit = 1 << 20

// unit is what a unit file says about what it runs.
type unit struct {
	programs []string // absolute paths in its commands
	ports    []string // that its socket listens on
	triggers string   // the unit that it starts, "" for the one of the same name
}

// parseUnit returns what a unit file says. Specifiers and variables are not resolved: a path with one is left out.
func parseUnit(text []byte) unit {
	var u unit
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		key, value, _ := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch key {
		case "ExecStart", "ExecStartPre":
			u.programs = append(u.programs, commandPaths(value)...)
		case "EnvironmentFile", "WorkingDirectory", "RootDirectory":
			if path.IsAbs(value) && !strings.ContainsAny(value, "%*") {
				u.programs = append(u.programs, path.Clean(value))
			}
		case "ListenStream", "ListenDatagram":
			if port := value[strings.LastIndex(value, ":")+1:]; port != "" && strings.Trim(port, "0123456789") == "" {
				u.ports = append(u.ports, map[string]string{"ListenStream": "tcp:", "ListenDatagram": "udp:"}[key]+port)
			}
		case "Unit", "Service":
			u.triggers = value
		}
	}
	return u
}

// commandPaths returns the absolute paths in a command line of systemd.service(5): the program, and arguments such as a
// script or a jar.
func commandPaths(command string) []string {
	var paths []string
	for n, word := range strings.Fields(command) {
		word = strings.Trim(word, `"'`)
		if n == 0 {
			word = strings.TrimLeft(word, "@-:+!|")
		}
		if path.IsAbs(word) && !strings.ContainsAny(word, "%$*?:;") {
			paths = append(paths, path.Clean(word))
		}
	}
	return paths
}
