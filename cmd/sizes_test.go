package cmd_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// How large a thing may become before nobody has all of it in mind.
const (
	maxRoom     = 1300 // lines of a room of the agent, without tests
	maxCommands = 2000 // the same for package agent, which has nothing but flow in it
	maxMethods  = 25   // of one type
	maxFunction = 60   // lines, where it is not a table
	maxLine     = 120  // characters, a tab is one
)

// What is larger today, and how large. These lists only get shorter: nobody adds an entry, and one goes when its thing
// fits.
var (
	largeRooms         = map[string]int{}
	largeTypes         = map[string]int{}
	largeFunctions     = map[string]int{}
	filesWithLongLines = map[string]int{}
)

// tables are the functions that are longer because they list things, each with what it lists.
var tables = map[string]string{}

func TestRoomsAreSmall(t *testing.T) {
	lines := map[string]int{}
	for _, s := range sources(t, parser.ImportsOnly) {
		if top(s.dir) == "agent" && !s.test && !slices.Contains(testSupport, s.dir) {
			lines[s.dir] += strings.Count(read(t, s), "\n")
		}
	}
	large := map[string]int{}
	for room, n := range lines {
		limit := maxRoom
		if room == "agent" {
			limit = maxCommands
		}
		if n > limit {
			large[room] = n
		}
	}
	compare(t, "lines", large, largeRooms)
}

func TestTypesHaveFewMethods(t *testing.T) {
	methods := map[string]int{}
	for _, s := range product(t) {
		if slices.Contains(testSupport, s.dir) {
			continue // the simulated machine implements all of the seam
		}
		for _, d := range s.syntax.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil {
				methods[s.dir+"."+receiver(f)]++
			}
		}
	}
	maps.DeleteFunc(methods, func(_ string, n int) bool { return n <= maxMethods })
	compare(t, "methods", methods, largeTypes)
}

func TestFunctionsAreShort(t *testing.T) {
	long := map[string]int{}
	unknown := maps.Clone(tables)
	for _, s := range product(t) {
		for _, d := range s.syntax.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name := s.dir + "." + f.Name.Name
			if f.Recv != nil {
				name = s.dir + "." + receiver(f) + "." + f.Name.Name
			}
			n := s.set.Position(f.End()).Line - s.set.Position(f.Pos()).Line + 1
			if n > maxFunction && tables[name] == "" {
				long[name] = n
			}
			if n > maxFunction {
				delete(unknown, name)
			}
		}
	}
	for name := range unknown {
		t.Errorf("%s is no long function: take it from the list of tables", name)
	}
	compare(t, "lines", long, largeFunctions)
}

func TestLinesAreShort(t *testing.T) {
	long := map[string]int{}
	for _, s := range sources(t, parser.ImportsOnly) {
		for line := range strings.Lines(read(t, s)) {
			if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > maxLine {
				long[s.name]++
			}
		}
	}
	compare(t, "long lines", long, filesWithLongLines)
}

// TestSeedsAreRun: the seeds of a fuzz test lie beside it. Elsewhere, nothing runs them and nothing fails.
func TestSeedsAreRun(t *testing.T) {
	targets := map[string]bool{}
	for _, s := range sources(t, parser.SkipObjectResolution) {
		for _, d := range s.syntax.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test && strings.HasPrefix(f.Name.Name, "Fuzz") {
				targets[s.dir+"/testdata/fuzz/"+f.Name.Name] = true
			}
		}
	}
	seeds := 0
	for _, depth := range []string{"", "*/", "*/*/", "*/*/*/"} {
		found, err := filepath.Glob("../*/" + depth + "testdata/fuzz/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range found {
			seeds++
			if dir = strings.TrimPrefix(filepath.ToSlash(dir), "../"); !targets[dir] {
				t.Errorf("%s has seeds of a fuzz test that is not in that package", dir)
			}
		}
	}
	if seeds == 0 {
		t.Error("no seeds were found")
	}
}

// product returns the files that are built into the commands.
func product(t *testing.T) []source {
	t.Helper()
	return slices.DeleteFunc(sources(t, parser.SkipObjectResolution), func(s source) bool {
		return s.test || top(s.dir) == "integration" || slices.Contains(testSupport, s.dir)
	})
}

// receiver returns the name of the type that a method is declared for.
func receiver(f *ast.FuncDecl) string {
	expr := f.Recv.List[0].Type
	if pointer, ok := expr.(*ast.StarExpr); ok {
		expr = pointer.X
	}
	if generic, ok := expr.(*ast.IndexExpr); ok {
		expr = generic.X
	}
	return fmt.Sprint(expr)
}

// read returns the text of a source.
func read(t *testing.T, s source) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", s.name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// compare reports what is too large and not in the list, what grew, and what fits by now and is still in the list.
func compare(t *testing.T, unit string, large, known map[string]int) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(large)) {
		switch n, most := large[name], known[name]; {
		case most == 0:
			t.Errorf("%s has too many %s: %d", name, unit, n)
		case n > most:
			t.Errorf("%s has too many %s, and more than before: %d, after %d", name, unit, n, most)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if large[name] == 0 {
			t.Errorf("%s is small enough by now: take it from the list", name)
		}
	}
}
