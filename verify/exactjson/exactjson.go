// Package exactjson answers what a JSON document from outside says. It promises that every reader gets the same
// answer: a document that two readers could understand differently is refused.
package exactjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds the depth of a document. An index has 5 levels.
const maxDepth = 32

// Unmarshal reads a JSON object into v as [json.Unmarshal] does, if [Check] accepts it.
func Unmarshal(data []byte, v any) error {
	if err := Check(data, v); err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// Check returns why two readers could read a JSON object into v, a pointer, in different ways: a key occurs twice, or
// is spelled otherwise than the field of v that [json.Unmarshal] takes it for ("Layers", "layer\u017f"); bytes are not
// UTF-8; there is something after the object.
func Check(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errors.New("it is not UTF-8")
	}
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return errors.New("it is not a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := walk(d, reflect.TypeOf(v), 0); err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("it is cut short")
	} else if err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is something after the JSON object")
	}
	return nil
}

// walk reads a value that is meant for a type, nil if that is not known.
func walk(d *json.Decoder, t reflect.Type, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("its JSON has more than %d levels", maxDepth)
	}
	token, err := d.Token()
	if err != nil {
		return err
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	t = plain(t)
	fields, elem := parts(t)
	seen := map[string]bool{}
	for d.More() {
		inner := elem
		if delim == '{' {
			token, err := d.Token()
			if err != nil {
				return err
			}
			key := token.(string)
			if seen[key] {
				return fmt.Errorf("it contains the key %q twice", key)
			}
			seen[key] = true
			if err := checkSpelling(key, fields); err != nil {
				return err
			}
			if fields != nil {
				inner = fields[key]
			}
		}
		if err := walk(d, inner, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token() // the closing bracket
	return err
}

// checkSpelling refuses a key that [json.Unmarshal] takes for a field although it is not its name. It compares as that
// does: besides the case, Unicode has letters that count as the same, such as U+017F and "s".
func checkSpelling(key string, fields map[string]reflect.Type) error {
	if _, exact := fields[key]; exact {
		return nil
	}
	for name := range fields {
		if strings.EqualFold(key, name) {
			return fmt.Errorf("it contains the key %+q, which is spelled %q", key, name)
		}
	}
	return nil
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// plain returns the type that a pointer leads to, nil if that reads its JSON itself.
func plain(t reflect.Type) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer && !t.Implements(unmarshaler) {
		t = t.Elem()
	}
	if t == nil || t.Implements(unmarshaler) || reflect.PointerTo(t).Implements(unmarshaler) {
		return nil
	}
	return t
}

// parts returns the types of the fields of a struct by their names in JSON, or that of the elements of a map or a list.
func parts(t reflect.Type) (fields map[string]reflect.Type, elem reflect.Type) {
	if t == nil {
		return nil, nil
	}
	switch t.Kind() {
	case reflect.Map, reflect.Slice, reflect.Array:
		return nil, t.Elem()
	case reflect.Struct:
	default:
		return nil, nil
	}
	fields = map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-", !f.IsExported():
		case name == "" && f.Anonymous: // its fields are listed, too
		case name == "":
			fields[f.Name] = f.Type
		default:
			fields[name] = f.Type
		}
	}
	return fields, nil
}
