package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/updatectl/updatectl/verify"
)

// errStalled is why a body that stays silent is given up on.
var errStalled = errors.New("no data arrived for too long")

// explain sorts an error of the registry client into this package's kinds.
func explain(err error) error {
	var answer *errcode.ErrorResponse
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, ErrSource), errors.Is(err, verify.ErrNotTrusted):
		return err
	case errors.As(err, &answer):
		return fmt.Errorf("%w: %v", kindOf(answer.StatusCode), err)
	case errors.Is(err, errdef.ErrNotFound):
		return fmt.Errorf("%w: %v", ErrNotFound, err)
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fmt.Errorf("%w: %v", ErrAuth, err)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
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
	return explain(err)
}

// mayPass tells whether trying again can help.
func mayPass(err error) bool { return errors.Is(err, ErrUnreachable) }
