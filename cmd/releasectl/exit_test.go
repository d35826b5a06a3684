package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/updatectl/updatectl/docs/schemas"
)

// TestNoSpace: a full quota is a full disk.
func TestNoSpace(t *testing.T) {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		err := fmt.Errorf("cannot write: %w", &fs.PathError{Op: "write", Path: "layout", Err: full})
		if code := exitCode(err); code != exitNoSpace || hint(err) == "" {
			t.Errorf("%v: code %d, hint %q", err, code, hint(err))
		}
	}
}

// TestErrorSchema: the document of an error is as published, with and without a hint.
func TestErrorSchema(t *testing.T) {
	for _, a := range []errorAnswer{
		{"releasectl.error/v1", "cannot do it", "do something else", exitError},
		{"releasectl.error/v1", "cannot do it", "", exitError},
	} {
		document, err := json.Marshal(a)
		if err == nil {
			err = schemas.Check(document)
		}
		if err != nil {
			t.Error(err)
		}
	}
}
