package main

import (
	"errors"
	"os"
	"syscall"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/packing"
	"github.com/updatectl/updatectl/image/publish"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/verify"
	"github.com/updatectl/updatectl/verify/sign"
)

// The exit codes that releasectl shares with updatectl. Each has one meaning.
const (
	exitError        = 1
	exitUsage        = 2
	exitNotTrusted   = 20
	exitIncompatible = 22
	exitNoSpace      = 30
	exitUnreachable  = 31
	exitInterrupted  = 130 // as a shell reports SIGINT
)

// usageError is a mistake on the command line.
type usageError struct{ err error }

func (u *usageError) Error() string { return u.err.Error() }
func (u *usageError) Unwrap() error { return u.err }

// exitCode returns the code of an error. The first case that fits wins.
func exitCode(err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, release.ErrIncompatible): // a newer format
		return exitIncompatible
	case errors.As(err, &usage), errors.Is(err, failure.ErrReference), errors.Is(err, publish.ErrIdentity),
		errors.Is(err, verify.ErrKey), errors.Is(err, sign.ErrKey), errors.Is(err, publish.ErrRelease),
		errors.Is(err, publish.ErrNoRelease), errors.Is(err, publish.ErrByTag):
		return exitUsage
	case errors.Is(err, verify.ErrNotTrusted):
		return exitNotTrusted
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return exitNoSpace
	case errors.Is(err, failure.ErrSource):
		return exitUnreachable
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	}
	return exitError
}

// hints say what to do about an error. The first that fits wins, so the more specific ones come first.
var hints = []struct {
	err  error
	text string
}{
	{sign.ErrNoKey, "name the file with the private key; `openssl genpkey -algorithm ed25519` makes one"},
	{sign.ErrKey, "the password of a key made by cosign is taken from COSIGN_PASSWORD, or asked for on a terminal"},
	{verify.ErrKey, `"cosign public-key --key FILE" prints the public half of a key`},
	{publish.ErrIdentity, "say where the image will be, with --identity host/repository"},
	{publish.ErrByTag, `sign host/repository@DIGEST, which "releasectl push" printed, or sign the layout before the push`},
	{publish.ErrSigned, `begin the next release with "releasectl release new" and a larger --sequence`},
	{publish.ErrNoRelease, `"releasectl inspect" shows what it is`},
	{release.ErrIncompatible, "install a newer releasectl"},
	{publish.ErrRelease, `"releasectl release --help" and docs/releases.md say what a release can contain`},
	{packing.ErrTree, "pack a root directory on one file system, or an uncompressed tar file of one"},
	{failure.ErrReference, "a reference is host/repository:TAG, or oci:DIR:TAG for a layout directory"},
	{verify.ErrUnsigned, `sign it with "releasectl sign --key FILE REFERENCE"`},
	{verify.ErrWrongKey, "compare the key with the one it was signed with"},
	{verify.ErrMalformed, "hosts refuse it, too: its publisher has to publish it again"},
	{verify.ErrNotTrusted, "do not use this image before you know who changed it, and why"},
	{syscall.ENOSPC, "free some space, or write somewhere else"},
	{syscall.EDQUOT, "raise the quota, free some space, or write somewhere else"},
	{failure.ErrAuth, `log in with "podman login" or "docker login"`},
	{failure.ErrNoTag, `check the tag; "releasectl pack" and "releasectl release new" write one`},
	{failure.ErrNotFound, "check the name and the tag; has the image been pushed?"},
	{failure.ErrNoLayout, "check the path; is what it lies on mounted?"},
	{failure.ErrUnreachable,
		"is the registry up? One without TLS needs --plain-http; a layout directory needs oci: before it"},
	{os.ErrNotExist, "check the path"},
}

func hint(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.text
		}
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return `see "releasectl --help" and "releasectl COMMAND --help"`
	}
	return ""
}
