// Package failure has the errors of reading an image from a registry or a layout, as far as callers decide by them.
package failure

import (
	"errors"
	"io/fs"
)

var (
	// ErrReference means that a reference has none of the forms that are read.
	ErrReference = errors.New("bad image reference")
	// ErrSource is the parent of all errors in reading a source.
	ErrSource = errors.New("source failed")
	// ErrNotFound means that the source answered, and does not have that tag or content.
	ErrNotFound = kindOf("not found", ErrSource)
	// ErrNoTag means that a layout does not have that tag; it is an ErrNotFound.
	ErrNoTag = kindOf("not found", ErrNotFound)
	// ErrUnreachable means that the source did not answer, or that its answer was wrong or incomplete.
	ErrUnreachable = kindOf("not reachable", ErrSource)
	// ErrAuth means that the source refused access, or requires a login.
	ErrAuth = kindOf("access denied", ErrSource)
	// ErrNoTLS means that the registry speaks plain HTTP, which was not allowed. It is an ErrUnreachable.
	ErrNoTLS = kindOf("no TLS", ErrUnreachable)
	// ErrNoLayout means that there is no OCI layout at the path. It is an ErrUnreachable.
	ErrNoLayout = kindOf("no OCI layout", ErrUnreachable)
)

// kind is an error whose text does not repeat that of its parent.
type kind struct {
	text   string
	parent error
}

func kindOf(text string, parent error) error { return &kind{text, parent} }
func (k *kind) Error() string                { return k.text }
func (k *kind) Unwrap() error                { return k.parent }

// Pathless returns an error without the name of its file, for a message that names the file already.
func Pathless(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// OfFile returns the error about a file that a library has wrapped, without the words of the library.
func OfFile(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at
	}
	return err
}
