package source

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/updatectl/updatectl/verify"
)

// Explain sorts an error of the registry client into this package's kinds, and says it without the client's internals.
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
		return ErrNotFound // the client's text says it again
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fmt.Errorf("%w: the registry wants a login and there are no credentials for it", ErrAuth)
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%w: the registry speaks plain HTTP, or something else that is not TLS", ErrNoTLS)
	case errors.As(err, &request):
		err = request.Err // method and URL say nothing the reference does not
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// describe puts a registry's refusal into words, its own where it has some.
func describe(answer *errcode.ErrorResponse) string {
	text := fmt.Sprintf("%d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	if len(answer.Errors) > 0 {
		text += fmt.Sprintf(" (%.200q)", answer.Errors[0].Message)
	}
	return text
}

// kindOf sorts HTTP status codes that are not a success.
func kindOf(status int) error {
	switch status {
	case http.StatusNotFound:
		return ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return ErrAuth
	}
	return ErrUnreachable
}

// cut explains the end of a body that came too early.
func cut(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return Explain(err)
}

// mayPass tells whether trying again can help.
func mayPass(err error) bool { return errors.Is(err, ErrUnreachable) }
