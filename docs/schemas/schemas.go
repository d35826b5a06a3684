// Package schemas validates JSON documents against the published schemas, which lie beside it, for the tests of the
// commands that print them. The schemas are closed: a member that is not documented is an error.
package schemas

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

//go:embed *.json
var files embed.FS

// Check validates a document by the schema that its member "schema" names.
func Check(document []byte) error {
	var named struct {
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal(document, &named); err != nil {
		return err
	}
	if named.Schema == "" {
		return fmt.Errorf("the document names no schema: %.80s", document)
	}
	return CheckAs(named.Schema, document)
}

// CheckAs validates a document by the schema of that name, for documents that do not name theirs.
func CheckAs(name string, document []byte) error {
	schema, err := compiled(name)
	if err != nil {
		return fmt.Errorf("cannot use the schema %s: %w", name, err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// Names returns the names of all schemas of documents.
func Names() ([]string, error) {
	found, err := fs.Glob(files, "*.json")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, file := range found {
		if file == shared {
			continue
		}
		text, err := files.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var s struct {
			Title string `json:"title"`
		}
		if err := json.Unmarshal(text, &s); err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", file, err)
		}
		if fileOf(s.Title) != file {
			return nil, fmt.Errorf("%s has the title %q, which belongs to %s", file, s.Title, fileOf(s.Title))
		}
		names = append(names, s.Title)
	}
	return names, nil
}

// shared is the file of the parts that several documents have in common.
const shared = "common.json"

// fileOf returns the file of the schema of that name.
func fileOf(name string) string { return strings.ReplaceAll(name, "/", ".") + ".json" }

// compiler returns one compiler for all schemas; it reads nothing but them.
var compiler = sync.OnceValue(func() *jsonschema.Compiler {
	c := jsonschema.NewCompiler()
	c.AssertFormat() // times must be times
	c.UseLoader(loader{})
	return c
})

var lock sync.Mutex // a compiler is not made for several goroutines

func compiled(name string) (*jsonschema.Schema, error) {
	lock.Lock()
	defer lock.Unlock()
	return compiler().Compile(base + fileOf(name))
}

// base stands for the directory of the schemas where files refer to each other.
const base = "embedded:///"

// loader reads the embedded files.
type loader struct{}

func (loader) Load(address string) (any, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	text, err := files.ReadFile(path.Base(u.Path))
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(text))
}
