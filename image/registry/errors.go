package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/verify"
)

// Explain turns an error of the registry client into one of package failure, in plain words.
func Explain(err error) error {
	var answer *errcode.ErrorResponse
	var request *url.Error
	var record tls.RecordHeaderError
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, failure.ErrSource),
		errors.Is(err, verify.ErrNotTrusted):
		return err
	case errors.As(err, &answer):
		return fmt.Errorf("%w: the registry answered %s", kindOf(answer.StatusCode), describe(answer))
	case errors.Is(err, errdef.ErrNotFound):
		return failure.ErrNotFound // the client's text adds nothing
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fmt.Errorf("%w: the registry requires a login, and there are no credentials for it", failure.ErrAuth)
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%w: the registry speaks plain HTTP, or something else that is not TLS", failure.ErrNoTLS)
	case errors.As(err, &request):
		err = request.Err // the method and the URL add nothing to the reference
	}
	return fmt.Errorf("%w: %w", failure.ErrUnreachable, err)
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
		return failure.ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return failure.ErrAuth
	}
	return failure.ErrUnreachable
}
