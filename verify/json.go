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

// maxDepth bounds the depth of JSON. An index has 5 levels.
const maxDepth = 32

// parseJSON reads a JSON object into v. It refuses what two readers could understand differently: a key that occurs
// twice, bytes that are not UTF-8, and anything after the object.
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
		return errors.New("there is something after the JSON object")
	}
	return json.Unmarshal(data, v)
}

// walkJSON reads a value, and refuses objects that contain a key twice.
func walkJSON(d *json.Decoder, key func(string) string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("its JSON has more than %d levels", maxDepth)
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
				return fmt.Errorf("it contains the key %q twice", name)
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

// foldedKey is how encoding/json compares keys with the fields of a struct: case does not matter, so "layers" and
// "Layers" are the same key.
func foldedKey(k string) string { return strings.ToLower(k) }

// exactKey is for annotations, whose names are data.
func exactKey(k string) string { return k }
