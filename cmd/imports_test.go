// Package cmd_test holds the rules of the source: who may import whom, and how large a thing may become.
package cmd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/updatectl/updatectl/"

// allowed lists the packages of this project that each package may import. Here, a package is a directory below agent/,
// switcher/ or cmd/, or another top-level directory with everything below it. Its tests follow the same rule: what
// needs two packages is tested in the upper one.
var allowed = map[string][]string{
	"cmd/updatectl": { // beside the commands of the agent, the types and errors of their answers
		"agent", "agent/adoption", "agent/changes", "agent/config", "agent/event", "agent/fleetlock", "agent/garbage",
		"agent/host", "agent/live", "agent/maintenance", "agent/metrics", "agent/outage", "agent/pause", "agent/turn",
		"agent/unattended", "agent/record", "agent/recheck", "agent/renew", "agent/repair", "agent/roots", "agent/transition",
		"agent/trial", "agent/trust", "agent/volatile",
		"switcher", "switcher/ending", "switcher/etc/adopted", "switcher/etc/difference", "switcher/keep", "switcher/level",
		"switcher/bootloader", "switcher/hostroot", "switcher/imagekernel", "switcher/livepatch",
		"switcher/pid1", "configs", "image", "verify", "cmd/cmdtest", "cmd/updatectl/report", "cmd/usage", "docs",
	},
	"cmd/updatectl/report": { // the types of the answers
		"agent", "agent/adoption", "agent/changes", "agent/config", "agent/contents", "agent/fleetlock", "agent/garbage",
		"agent/hold", "agent/pause",
		"agent/live", "agent/offer",
		"agent/outage", "agent/record", "agent/recheck", "agent/renew", "agent/repair", "agent/roots", "agent/trial",
		"image",
		"switcher", "switcher/ending", "switcher/etc", "switcher/etc/accounts/numbers", "switcher/etc/difference",
		"switcher/facts", "switcher/holding", "switcher/keep", "switcher/level", "switcher/livepatch",
		"switcher/packages", "switcher/pid1",
		"switcher/rootfs", "verify", "cmd/usage",
	},
	"cmd/releasectl":       {"cmd/cmdtest", "cmd/releasectl/fleet", "cmd/usage", "docs", "image", "verify"},
	"cmd/releasectl/fleet": {"docs"}, // its types are compared with the schemas
	"cmd/usage":            {"verify"},
	"cmd/cmdtest":          {"docs", "verify"},

	// Each answers one question about the host, and stands on what is listed here and on ground.
	"agent/event":     {},
	"agent/network":   {},
	"agent/listening": {"switcher/cgroups"},
	"agent/systemd":   {},
	"agent/program":   {},
	"agent/fleetlock": {},
	"agent/hook":      {"agent/program"},
	"agent/health":    {"agent/listening", "agent/network", "agent/program", "agent/systemd"},
	"agent/outage":    {"agent/listening"},
	"agent/machine":   {"agent/health", "agent/outage"}, // the seam
	"agent/config":    {"agent/health"},
	"agent/record":    {"agent/config", "agent/health", "agent/network", "agent/outage"},
	"agent/trust":     {}, // plain data and the policy of verify
	"agent/host":      {"agent/config", "agent/machine", "agent/record", "agent/trust"},
	"agent/recheck":   {"agent/config", "agent/host", "agent/record", "agent/roots"},
	"agent/offer":     {"agent/config", "agent/host", "agent/record"},
	"agent/roots":     {"agent/config", "agent/host", "agent/machine", "agent/record"},
	"agent/adoption": {
		"agent/config", "agent/host", "agent/machine", "agent/record", "agent/roots",
	},
	"agent/live": {"agent/config", "agent/host", "agent/offer", "agent/record", "agent/roots"},
	"agent/transition": {
		"agent/config", "agent/health", "agent/host", "agent/keep", "agent/machine", "agent/record", "agent/roots",
		"agent/stale",
	},
	"agent/stale":       {"agent/host", "configs"},
	"agent/boot":        {"agent/config", "agent/host", "agent/machine", "agent/record", "agent/roots"},
	"agent/maintenance": {"agent/boot", "agent/host", "agent/machine", "agent/record", "agent/roots", "agent/volatile"},
	"agent/volatile":    {"agent/record", "agent/roots"},
	"agent/garbage":     {"agent/host", "agent/live", "agent/record"},
	"agent/attempt":     {"agent/host", "agent/machine", "agent/record"}, // of unattended runs
	"agent/unattended": {
		"agent", "agent/attempt", "agent/circumstances", "agent/config", "agent/decide", "agent/machine", "agent/pause",
		"agent/record",
		"agent/rollout", "agent/schedule", "agent/turn",
	},
	"agent/turn": {
		"agent/config", "agent/fleetlock", "agent/hook", "agent/host", "agent/machine", "agent/pause", "agent/record",
		"agent/rollout",
	},
	"agent/pause":    {"agent/host", "agent/machine", "agent/record"},
	"agent/keep":     {"agent/host", "agent/machine", "agent/record", "agent/roots"},
	"agent/renew":    {"agent/host", "agent/keep", "agent/machine"},
	"agent/contents": {"agent/host", "agent/roots"},
	"agent/repair":   {"agent/host", "agent/offer"},
	"agent/trial": {"agent/config", "agent/guard", "agent/health", "agent/host", "agent/machine", "agent/record",
		"agent/renew",
		"agent/roots", "agent/transition"},
	"agent/guard": {
		"agent/config", "agent/hold", "agent/host", "agent/listening", "agent/machine", "agent/outage", "agent/record",
		"agent/roots", "agent/transition",
	},
	"agent/hold": {
		"agent/config", "agent/health", "agent/host", "agent/listening", "agent/machine", "agent/outage",
		"agent/record",
	},
	"agent/decide":        {"agent/record", "agent/roots"},
	"agent/schedule":      {},
	"agent/circumstances": {},
	"agent/rollout":       {}, // the rollout of a release
	"agent/metrics": { // of what the status says
		"agent", "agent/attempt", "agent/config", "agent/fleetlock", "agent/live", "agent/machine", "agent/outage",
		"agent/pause", "agent/record",
	},
	"agent": { // the commands
		"agent/attempt", "agent/boot", "agent/fleetlock", "agent/pause",
		"agent/adoption", "agent/changes", "agent/config", "agent/contents", "agent/decide", "agent/garbage", "agent/guard",
		"agent/health", "agent/hold", "agent/host", "agent/keep", "agent/live", "agent/machine", "agent/offer",
		"agent/outage",
		"agent/recheck", "agent/record", "agent/renew", "agent/repair", "agent/roots", "agent/transition",
		"agent/hook", "agent/trial", "agent/turn", "agent/volatile",
	},
	"agent/changes": {"agent/config", "agent/host", "agent/machine", "agent/program", "agent/record", "agent/roots"},
	"agent/simulation": { // the commands run in it
		"agent", "agent/config", "agent/garbage", "agent/health", "agent/host", "agent/listening", "agent/machine",
		"agent/network", "agent/outage", "agent/pause", "agent/record", "agent/roots", "agent/simulation/disk",
		"agent/systemd",
		"agent/transition",
		"agent/trial", "agent/volatile",
	},
	"agent/simulation/disk":  {},
	"agent/simulation/fleet": {"agent/rollout", "agent/schedule"},
	"agent/event/eventtest":  {}, // what tests see of agent/event
	"agent/hosttest":         {"agent/config", "agent/host", "agent/machine", "agent/record"},

	"switcher":        {}, // names that several of its packages need
	"switcher/rootfs": {"arch", "switcher"},
	"switcher/mount":  {"switcher"},
	"switcher/etc": {
		"switcher/etc/access", "switcher/etc/accounts", "switcher/etc/accounts/numbers", "switcher/etc/accounts/table",
		"switcher/etc/adopted", "switcher/etc/authorities", "switcher/etc/derived", "switcher/etc/fields",
		"switcher/etc/fstab", "switcher/etc/listing",
		"switcher/etc/merge3", "switcher/etc/needs", "switcher/etc/paths", "switcher/etc/reserved", "switcher/etc/sshd",
		"switcher/etc/users", "switcher/rootfs",
	},
	"switcher/etc/difference": {
		"switcher/etc/accounts/table", "switcher/etc/derived", "switcher/etc/fstab", "switcher/etc/listing",
		"switcher/etc/merge3", "switcher/etc/paths", "switcher/etc/reserved", "switcher/etc/users", "switcher/rootfs",
	},
	"switcher/etc/fields": {
		"switcher/etc/accounts/table", "switcher/etc/listing", "switcher/etc/merge3", "switcher/etc/paths",
		"switcher/etc/reserved",
	},
	"switcher/etc/adopted": {"switcher/etc/paths", "switcher/rootfs"},
	"switcher/etc/remake": {
		"switcher/etc/authorities", "switcher/etc/derived", "switcher/etc/listing", "switcher/etc/reserved",
		"switcher/rootfs",
	},
	"switcher/etc/access": {
		"switcher/etc/accounts", "switcher/etc/accounts/table", "switcher/etc/listing", "switcher/etc/sshd",
		"switcher/rootfs",
	},
	"switcher/etc/users": {
		"switcher/etc/accounts", "switcher/etc/accounts/journal", "switcher/etc/accounts/numbers",
		"switcher/etc/accounts/table", "switcher/etc/listing",
	},
	"switcher/etc/accounts":         {"switcher/etc/accounts/numbers", "switcher/etc/accounts/table"},
	"switcher/etc/accounts/journal": {"switcher/etc/accounts/table"},
	"switcher/etc/accounts/numbers": {"switcher/etc/accounts/table"},
	"switcher/etc/accounts/table":   {},
	"switcher/etc/fstab":            {"switcher/etc/listing", "switcher/etc/paths", "switcher/rootfs"},
	"switcher/etc/needs":            {"switcher/etc/paths", "switcher/etc/sshd", "switcher/rootfs"},
	"switcher/etc/reserved":         {"switcher/etc/paths"},
	"switcher/etc/authorities":      {"switcher/etc/paths"},
	"switcher/etc/derived":          {"switcher/etc/paths"},
	"switcher/etc/listing":          {"owned", "switcher/etc/paths"},
	"switcher/etc/sshd":             {"switcher/rootfs"},
	"switcher/etc/paths":            {},
	"switcher/etc/merge3":           {},
	"switcher/etc/unchanged":        {},
	"switcher/livepatch":            {},
	"switcher/packages":             {"switcher/rootfs"},
	"switcher/pid1":                 {"switcher", "switcher/cgroups", "switcher/ending", "switcher/keep"},
	"switcher/hold":                 {},
	"switcher/holding":              {},
	"switcher/keep":                 {"switcher/rootfs"},
	"switcher/ending":               {},
	"switcher/facts":                {"switcher", "switcher/mount", "switcher/pid1", "switcher/rootfs"},
	"switcher/kept":                 {"switcher", "switcher/facts", "switcher/mount"},
	"switcher/level":                {"switcher", "switcher/facts", "switcher/rootfs"},
	"switcher/behind":               {"configs", "switcher/rootfs"}, // the list is read in its tests
	"switcher/fetchback":            {},
	"switcher/assembly": {"switcher", "switcher/carried", "switcher/copies", "switcher/facts", "switcher/kept",
		"switcher/mount", "switcher/origin", "switcher/rootfs", "switcher/seed", "switcher/volatile"},
	"switcher/volatile":   {"switcher", "switcher/copies", "switcher/facts", "switcher/mount"},
	"switcher/origin":     {"owned", "switcher/carried", "switcher/facts", "switcher/mount"},
	"switcher/carried":    {"switcher", "switcher/facts", "switcher/rootfs"},
	"switcher/seed":       {"owned", "switcher/copies"},
	"switcher/graft":      {"switcher", "switcher/copies", "switcher/pid1", "switcher/rootfs"},
	"switcher/copies":     {},
	"switcher/hostroot":   {"switcher", "switcher/mount"},
	"switcher/bootloader": {},
	"switcher/imagekernel": {"switcher", "switcher/bootloader", "switcher/copies", "switcher/facts", "switcher/graft",
		"switcher/hostroot", "switcher/rootfs"},
	"switcher/cgroups":  {"switcher"},
	"switcher/testtree": {},

	"image":       {"arch", "owned", "verify"},
	"verify":      {},
	"configs":     {},
	"durable":     {},
	"arch":        {},
	"owned":       {},
	"docs":        {},                  // schemas of what the commands print, for their tests
	"integration": {"image", "verify"}, // helpers of tests; of the product, only the built binaries
}

// ground is what every package of the agent may stand on.
var ground = []string{
	"agent/event",
	"configs", "image", "owned", "verify", "switcher", "switcher/assembly", "switcher/behind", "switcher/bootloader",
	"switcher/cgroups",
	"switcher/copies", "switcher/ending", "switcher/etc", "switcher/origin",
	"switcher/etc/accounts/journal", "switcher/etc/accounts/numbers", "switcher/etc/accounts/table",
	"switcher/etc/adopted", "switcher/etc/derived", "switcher/etc/difference", "switcher/etc/fstab",
	"switcher/etc/remake", "switcher/etc/unchanged", "switcher/etc/users",
	"switcher/facts", "switcher/fetchback", "switcher/graft", "switcher/hold", "switcher/holding", "switcher/hostroot",
	"switcher/imagekernel", "switcher/keep",
	"switcher/kept",
	"switcher/level", "switcher/livepatch", "switcher/mount", "switcher/packages", "switcher/pid1",
	"switcher/rootfs", "switcher/volatile",
}

// inImage lists the packages of image that each of them may import. Tests may import more: many read what they publish.
var inImage = map[string][]string{
	"image": {
		"image/composefs", "image/failure", "image/fsverity", "image/inventory", "image/layer", "image/release",
		"image/source", "image/store",
	},
	"image/publish": {
		"image", "image/failure", "image/layout", "image/patches", "image/registry", "image/release", "image/source",
	},
	"image/packing":             {"image", "image/failure", "image/layer"},
	"image/patches":             {"image/release", "image/source", "image/store"},
	"image/patches/patchestest": {},
	"image/source":              {"image/failure", "image/fetcher", "image/layout", "image/registry"},
	"image/fetcher":             {"image/failure", "image/registry"},
	"image/registry":            {"image/failure"},
	"image/layout":              {"image/failure"},
	"image/failure":             {},
	"image/release":             {"image/fsverity"},
	"image/store":               {"image/composefs", "image/fsverity", "image/inventory"},
	"image/inventory":           {"image/fsverity", "image/layer"},
	"image/composefs":           {"image/fsverity", "image/layer"},
	"image/layer":               {"image/fsverity"},
	"image/fsverity":            {},
}

// everywhere is the package that every other one may import. It imports none of them.
const everywhere = "durable"

// testSupport lists the packages that only tests may import.
var testSupport = []string{
	"agent/event/eventtest", "agent/hosttest", "agent/simulation", "agent/simulation/disk", "agent/simulation/fleet",
	"cmd/cmdtest",
	"docs/schemas", "switcher/testtree", "image/patches/patchestest", "verify/verifytest",
}

// top returns the top-level directory of a directory.
func top(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

// packageOf returns the package, as allowed lists it, that a directory belongs to.
func packageOf(dir string) string {
	switch top(dir) {
	case "agent", "cmd", "switcher":
		return dir
	}
	return top(dir)
}

// mayImport reports whether the files of one package may import another.
func mayImport(from, to string) bool {
	return from == to || to == everywhere || slices.Contains(standsOn(from), to)
}

// standsOn returns the packages below a package, without the one that is below all of them.
func standsOn(pkg string) []string {
	if pkg == "agent" || strings.HasPrefix(pkg, "agent/") {
		return slices.Concat(allowed[pkg], ground)
	}
	return allowed[pkg]
}

// A source is a parsed file of the project.
type source struct {
	name, dir string // relative to the project, with slashes
	test      bool
	set       *token.FileSet
	syntax    *ast.File
	imports   []string // directories of this project
}

// sources parses every Go file of the project.
func sources(t *testing.T, mode parser.Mode) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir("..", func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && len(d.Name()) > 2 && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") {
			return err
		}
		name := strings.TrimPrefix(filepath.ToSlash(file), "../")
		s := source{name: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), set: token.NewFileSet()}
		if s.syntax, err = parser.ParseFile(s.set, file, nil, mode); err != nil {
			return err
		}
		for _, i := range s.syntax.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if dir, ours := strings.CutPrefix(imported, module); ours {
				s.imports = append(s.imports, dir)
			}
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestImportDirection(t *testing.T) {
	imports := map[string]int{}
	for _, s := range sources(t, parser.ImportsOnly) {
		if s.dir == "cmd" { // these tests
			continue
		}
		from := packageOf(s.dir)
		if _, known := allowed[from]; !known {
			t.Errorf("%s is in %s, a package that the rules do not know", s.name, from)
			continue
		}
		imports[from] += len(s.imports)
		for _, to := range s.imports {
			pkg := packageOf(to)
			if slices.Contains(testSupport, to) {
				if !s.test && !slices.Contains(testSupport, s.dir) {
					t.Errorf("%s imports %s, which is for tests", s.name, to)
				}
				if pkg = top(to); pkg == top(from) { // tests of all of its packages
					continue
				}
			}
			if !mayImport(from, pkg) {
				t.Errorf("%s imports %s, which %s must not", s.name, to, from)
			}
		}
	}
	for pkg := range allowed {
		if _, seen := imports[pkg]; !seen {
			t.Errorf("the rules know the package %s, and it has no file", pkg)
		}
	}
	if imports["agent"] == 0 || imports["image"] == 0 {
		t.Errorf("the walk saw no imports of agent or image: %v", imports)
	}
}

func TestImportDirectionInImage(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sources(t, parser.ImportsOnly) {
		if top(s.dir) != "image" || s.test {
			continue
		}
		allowed, known := inImage[s.dir]
		if seen[s.dir] = true; !known {
			t.Errorf("%s is in %s, a package that the rules do not know", s.name, s.dir)
		}
		for _, to := range s.imports {
			if top(to) == "image" && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s, which %s must not", s.name, to, s.dir)
			}
		}
	}
	for pkg := range inImage {
		if !seen[pkg] {
			t.Errorf("the rules know the package %s, and it has no file", pkg)
		}
	}
}

// TestRoomsHaveNoCycle: the rules themselves allow no way back, whatever is imported today.
func TestRoomsHaveNoCycle(t *testing.T) {
	state := map[string]string{}
	var visit func(pkg string, way []string)
	visit = func(pkg string, way []string) {
		way = append(way, pkg)
		switch state[pkg] {
		case "done":
			return
		case "on the way":
			t.Errorf("the rules allow a cycle: %s", strings.Join(way, " imports "))
			return
		}
		state[pkg] = "on the way"
		for _, below := range append(standsOn(pkg), everywhere) {
			if _, known := allowed[below]; !known {
				t.Errorf("%s may import %s, a package that the rules do not know", pkg, below)
			}
			if below != pkg { // only that package is below itself
				visit(below, way)
			}
		}
		state[pkg] = "done"
	}
	for pkg := range allowed {
		visit(pkg, nil)
	}
}

// TestCommandsHaveNoTestSupport follows the imports of the commands all the way down.
func TestCommandsHaveNoTestSupport(t *testing.T) {
	imports := map[string][]string{}
	for _, s := range sources(t, parser.ImportsOnly) {
		if !s.test {
			imports[s.dir] = append(imports[s.dir], s.imports...)
		}
	}
	reached := map[string]bool{}
	var reach func(dir string)
	reach = func(dir string) {
		if reached[dir] {
			return
		}
		reached[dir] = true
		for _, to := range imports[dir] {
			reach(to)
		}
	}
	for dir := range imports {
		if dir == "cmd/updatectl" || dir == "cmd/releasectl" {
			reach(dir)
		}
	}
	for _, dir := range testSupport {
		if _, there := imports[dir]; !there {
			t.Errorf("%s is not there", dir)
		}
		if reached[dir] {
			t.Errorf("the commands contain %s, which is for tests", dir)
		}
	}
	if !reached["agent/guard"] || !reached["durable"] {
		t.Errorf("the commands do not reach what they surely contain: %v", reached)
	}
}
