package main

import (
	"errors"
	"os"
	"syscall"

	"github.com/updatectl/updatectl/image/publish"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/sign"
)

// The exit codes that releasectl shares with updatectl, one meaning each.
const (
	exitError       = 1
	exitUsage       = 2
	exitNotTrusted  = 20
	exitNoSpace     = 30
	exitUnreachable = 31
)

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (u *usageError) Error() string { return u.err.Error() }
func (u *usageError) Unwrap() error { return u.err }

// exitCode gives each kind of error its code. The first that fits wins.
func exitCode(err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage), errors.Is(err, source.ErrReference), errors.Is(err, publish.ErrIdentity),
		errors.Is(err, verify.ErrKey), errors.Is(err, sign.ErrKey), errors.Is(err, publish.ErrRelease):
		return exitUsage
	case errors.Is(err, verify.ErrNotTrusted):
		return exitNotTrusted
	case errors.Is(err, syscall.ENOSPC):
		return exitNoSpace
	case errors.Is(err, source.ErrSource):
		return exitUnreachable
	}
	return exitError
}

// hints says what to do about an error, the most particular first.
var hints = []struct {
	err  error
	text string
}{
	{sign.ErrKey, "a key made by cosign takes its password from COSIGN_PASSWORD or the terminal"},
	{verify.ErrKey, `the public half of a key is what "cosign public-key --key FILE" prints`},
	{publish.ErrIdentity, "name where the image will be with --identity host/repository"},
	{publish.ErrSigned, `begin the next one with "releasectl release new" and a larger sequence`},
	{publish.ErrRelease, `"releasectl release --help" and docs/releases.md tell what a release may say`},
	{publish.ErrTree, "give a root directory on one file system, or an uncompressed tar file of one"},
	{source.ErrReference, `references look like "host/repository:tag" or "oci:DIR:tag"`},
	{verify.ErrUnsigned, `sign it with "releasectl sign --key FILE REFERENCE"`},
	{verify.ErrWrongKey, "compare the key with the one it was signed with"},
	{verify.ErrNotTrusted, "do not use this image before you know who changed it"},
	{syscall.ENOSPC, "free some space, or write somewhere else"},
	{source.ErrAuth, `log in with "podman login" or "docker login"`},
	{source.ErrNotFound, "is the tag written right, and has the image been pushed?"},
	{source.ErrNoLayout, "is the path written right?"},
	{source.ErrUnreachable, "is the registry up? One without TLS needs --plain-http"},
	{os.ErrNotExist, "is the path written right?"},
}

func hint(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.text
		}
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return `"releasectl --help" and "releasectl COMMAND --help" tell more`
	}
	return ""
}
