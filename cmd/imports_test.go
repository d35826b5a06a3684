// Package cmd_test holds the rule of who may import whom.
package cmd_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/updatectl/updatectl/"

// allowed lists, for every room of the project, the rooms it may import. A room is a top-level folder, or below cmd
// the command's.
var allowed = map[string][]string{
	"cmd/updatectl":  {"agent", "configs", "switcher", "image", "verify"}, // image, switcher and verify for their answers' types and errors
	"cmd/releasectl": {"image", "verify"},
	"agent":          {"image", "verify", "switcher", "configs"},
	"image":          {"verify"},
	"verify":         {},
	"switcher":       {},
	"configs":        {},
	"durable":        {},
	"integration":    {"verify", "image"}, // the authority and the maker of modules for tests; of the product, only the built binaries
}

// everywhere is the room that every other one may import. It imports none of them.
const everywhere = "durable"

func room(path string) string {
	parts := strings.Split(path, "/")
	if parts[0] == "cmd" && len(parts) > 1 {
		return parts[0] + "/" + parts[1]
	}
	return parts[0]
}

func TestImportDirection(t *testing.T) {
	seen := map[string]int{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || filepath.Base(path) == "imports_test.go" {
			return err
		}
		rel, err := filepath.Rel("..", path)
		if err != nil {
			return err
		}
		from := room(filepath.ToSlash(rel))
		rule, known := allowed[from]
		if !known {
			t.Errorf("%s is in %s, a room that the rules do not know", rel, from)
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, imp := range file.Imports {
			name, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			inner, ours := strings.CutPrefix(name, module)
			if !ours || room(inner) == from {
				continue
			}
			seen[from]++
			if room(inner) != everywhere && !contains(rule, room(inner)) {
				t.Errorf("%s imports %s, which %s must not", rel, name, from)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen["agent"] == 0 || seen["image"] == 0 {
		t.Errorf("the walk saw no imports of agent or image: %v", seen)
	}
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}
