// Package sshd reads what a sshd_config(5) names: files, keys and programs.
package sshd

import (
	"path"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/rootfs"
)

// Config is what the files of an sshd_config(5) say about who may log in.
type Config struct {
	keys  []string // values of AuthorizedKeysFile
	files []string // absolute paths that a setting names, with the tokens of sshd_config(5)
	Runs  []string // programs that a setting names
}

// sshdFiles are the settings that name files, and sshdPrograms those that name a program, which may have arguments.
var (
	sshdFiles = []string{
		"authorizedkeysfile", "authorizedprincipalsfile", "trustedusercakeys", "revokedkeys", "hostkey", "hostcertificate",
		"banner", "modulifile", "include",
	}
	sshdPrograms = []string{"authorizedkeyscommand", "authorizedprincipalscommand", "subsystem"}
)

// Read reads what a tree configures for sshd.
func Read(tree rootfs.Dir) Config {
	var texts [][]byte
	for _, file := range append([]string{"/etc/ssh/sshd_config"}, sshdFragments(tree)...) {
		text, _ := tree.ReadFile(file, rootfs.MaxConfig)
		texts = append(texts, text)
	}
	return Parse(texts...)
}

func sshdFragments(tree rootfs.Dir) []string {
	var files []string
	for _, name := range tree.Names("/etc/ssh/sshd_config.d") {
		if strings.HasSuffix(name, ".conf") {
			files = append(files, path.Join("/etc/ssh/sshd_config.d", name))
		}
	}
	return files
}

// Parse returns what the texts of an sshd_config say. Conditions are not judged: what holds for anybody counts.
func Parse(texts ...[]byte) Config {
	var s Config
	for _, text := range texts {
		for line := range strings.Lines(string(text)) {
			fields := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n=\"", r) })
			if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
				continue
			}
			key, values := strings.ToLower(fields[0]), fields[1:]
			switch {
			case key == "subsystem":
				values = values[1:]
			case key == "authorizedkeysfile":
				s.keys = append(s.keys, values...)
			}
			switch {
			case slices.Contains(sshdPrograms, key) && len(values) > 0 && path.IsAbs(values[0]):
				s.Runs = append(s.Runs, values[0])
			case slices.Contains(sshdFiles, key):
				s.files = append(s.files, slices.DeleteFunc(values, func(v string) bool { return !path.IsAbs(v) })...)
			}
		}
	}
	return s
}

// KeyFiles returns the files that keys are looked for in; relative ones are below the home.
func (s Config) KeyFiles() []string {
	if len(s.keys) == 0 {
		return []string{".ssh/authorized_keys", ".ssh/authorized_keys2"}
	}
	return s.keys
}

// Adopted returns the patterns for the files below /etc that the settings name. What a token stands for is a whole
// directory's content.
func (s Config) Adopted() []string {
	var list []string
	for _, file := range s.files {
		rel, below := strings.CutPrefix(path.Clean(file), "/etc/")
		if at := strings.IndexByte(rel, '%'); at >= 0 {
			rel, _ = path.Split(rel[:at])
			rel = strings.TrimSuffix(rel, "/")
		}
		if _, err := path.Match(rel, ""); below && err == nil && rel != "" {
			list = append(list, rel)
		}
	}
	return list
}
