package source

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/updatectl/updatectl/verify"
)

// Explain turns an error of the registry client into one of this package, in plain words.
func Explain(err error) error {
	var answer *errcode.ErrorResponse
	var request *url.Error
	var record tls.RecordHeaderError
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, ErrSource), errors.Is(err, verify.ErrNotTrusted):
		return err
	case errors.As(err, &answer):
		return fmt.Errorf("%w: the registry answered %s", kindOf(answer.StatusCode), describe(answer))
	case errors.Is(err, errdef.ErrNotFound):
		return ErrNotFound // the client's text adds nothing
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fmt.Errorf("%w: the registry requires a login, and there are no credentials for it", ErrAuth)
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%w: the registry speaks plain HTTP, or something else that is not TLS", ErrNoTLS)
	case errors.As(err, &request):
		err = request.Err // the method and the URL add nothing to the reference
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// describe returns the status of an answer and, if it has one, the message of the registry.
func describe(answer *errcode.ErrorResponse) string {
	text := fmt.Sprintf("%d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	if len(answer.Errors) > 0 {
		text += fmt.Sprintf(" (%.200q)", answer.Errors[0].Message)
	}
	return text
}

// kindOf returns the kind of error of an HTTP status.
func kindOf(status int) error {
	switch status {
	case http.StatusNotFound:
		return ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return ErrAuth
	}
	return ErrUnreachable
}

// cutShort returns the error for a body that ended too early.
func cutShort(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return Explain(err)
}

// mayRecover reports whether another attempt can help.
func mayRecover(err error) bool { return errors.Is(err, ErrUnreachable) }

// Pathless returns an error without the name of the file, for a message that has it already.
func Pathless(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}
