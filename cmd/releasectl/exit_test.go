package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"testing"

	"github.com/updatectl/updatectl/cmd/usage"
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
	for _, hint := range []string{"", "do something else"} {
		var document bytes.Buffer
		out := &output{stdout: &document, stderr: io.Discard, format: "json"}
		err := out.answer("error", usage.Failure{Error: "cannot do it", Hint: hint, Code: exitError}, nil)
		if err == nil {
			err = schemas.Check(document.Bytes())
		}
		if err != nil {
			t.Error(err)
		}
	}
}
