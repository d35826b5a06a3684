package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep JSON may nest. An index needs 5.
const maxDepth = 32

// parseJSON reads one JSON object into v. It refuses what two readers could understand differently: a key that comes
// twice, bytes that are no UTF-8, something after the object.
func parseJSON(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errors.New("it is not UTF-8")
	}
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return errors.New("it is not a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := walkJSON(d, foldedKey, 0); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the JSON object")
	}
	return json.Unmarshal(data, v)
}

// walkJSON reads one value and refuses objects that have a key twice.
func walkJSON(d *json.Decoder, key func(string) string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("its JSON nests deeper than %d levels", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return err
	}
	delim, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	seen := make(map[string]bool)
	for d.More() {
		inner := key
		if delim == '{' {
			name, err := d.Token()
			if err != nil {
				return err
			}
			k := key(name.(string))
			if seen[k] {
				return fmt.Errorf("the key %q comes twice", name)
			}
			seen[k] = true
			if k == "annotations" {
				inner = exactKey
			}
		}
		if err := walkJSON(d, inner, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token() // the closing bracket
	return err
}

// foldedKey is how encoding/json finds a struct's field: case does not matter, so "layers" and "Layers" are the same
// key twice.
func foldedKey(k string) string { return strings.ToLower(k) }

// exactKey is for annotations, whose names are data.
func exactKey(k string) string { return k }
