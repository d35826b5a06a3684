package adopted

import (
	"path"
	"strings"

	"github.com/updatectl/updatectl/switcher/etc/paths"
	"github.com/updatectl/updatectl/switcher/rootfs"
)

// alternativesDirs are where update-alternatives keeps what a person chose, in Debian and in Fedora.
var alternativesDirs = []string{"/var/lib/dpkg/alternatives", "/var/lib/alternatives"}

// Alternatives returns the links in /etc/alternatives that a person chose on a host, with those that follow them.
func Alternatives(host rootfs.Dir) paths.List {
	var chosen paths.List
	for _, dir := range alternativesDirs {
		for _, name := range host.Names(dir) {
			text, err := host.ReadFile(path.Join(dir, name), rootfs.MaxConfig)
			if err != nil {
				continue
			}
			for _, link := range parseAlternative(name, string(text)) {
				if !strings.ContainsAny(link, `*?[\/`) {
					chosen = append(chosen, path.Join("alternatives", link))
				}
			}
		}
	}
	return chosen
}

// parseAlternative returns the links that a person chose together: the one of the name, and those that follow it. It
// returns nil if the choice is made automatically.
func parseAlternative(name, text string) []string {
	all := strings.Split(text, "\n")
	if all[0] != "manual" || len(all) < 3 {
		return nil
	}
	links := []string{name}
	for i := 2; i < len(all) && all[i] != ""; i += 2 { // its name, then where its link is
		links = append(links, all[i])
	}
	return links
}
