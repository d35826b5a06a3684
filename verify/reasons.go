package verify

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// unusable returns the error for a candidate that cannot be used. An error that has a class is complete already.
func (c Candidate) unusable(err error) error {
	if errors.Is(err, ErrNotTrusted) {
		return err
	}
	return &refused{fmt.Sprintf("cannot use the signature from %s: %v", c.From, err), ErrMalformed}
}

// misuse says why a good signature by a configured signer is not one of the image d.
func (c Candidate) misuse(v *Voucher, err error, d digest.Digest) error {
	var other *otherImage
	var statement *notForImage
	switch {
	case errors.As(err, &other):
		return &refused{fmt.Sprintf("the signature by %s is for %q, not for %s", v.Signer, other.digest, d), ErrDigest}
	case errors.As(err, &statement):
		return &refused{fmt.Sprintf("%s signed %s, which is no signature of an image", v.Signer, statement.what),
			ErrUnsigned}
	}
	return c.unusable(err)
}

// telling lists the classes of reasons, the most important first. Only one reason is shown, and strangers can add
// signatures at the end.
var telling = []error{ErrRevoked, ErrExpired, ErrDigest, ErrUnsigned, ErrLog, ErrTimestamp, ErrWrongIdentity}

// reasons collects why candidates were not accepted.
type reasons struct {
	of     digest.Digest
	found  int
	broken int // number of candidates that are malformed
	errs   []error
}

func (r *reasons) add(errs []error) {
	r.errs = append(r.errs, errs...)
	if len(errs) > 0 && first(errs, telling...) == nil {
		r.broken++
	}
}

// first returns the first error of the first class that has one.
func first(errs []error, classes ...error) error {
	for _, class := range classes {
		for _, err := range errs {
			if errors.Is(err, class) {
				return err
			}
		}
	}
	return nil
}

// also returns why another signer was not counted, as the end of a message.
func (r *reasons) also() string {
	if err := first(r.errs, telling...); err != nil {
		return "; " + err.Error()
	}
	return ""
}

// refusal returns the error if nobody vouched.
func (r *reasons) refusal(signers []signer) error {
	if err := first(r.errs, telling...); err != nil {
		if errors.Is(err, ErrDigest) {
			return err
		}
		return fmt.Errorf("no signature of %s is accepted: %w", r.of, err)
	}
	if r.broken == r.found {
		return fmt.Errorf("no signature of %s can be read: %w", r.of, first(r.errs, ErrMalformed))
	}
	names := make([]string, len(signers))
	for i, s := range signers {
		names[i] = s.name()
	}
	were := "signatures were"
	if r.found == 1 {
		were = "signature was"
	}
	return &refused{fmt.Sprintf("%d %s found for %s, none by a configured key%s (%s)", r.found, were, r.of,
		orIdentity(signers), strings.Join(names, ", ")), ErrWrongKey}
}

// orIdentity mentions identities in a message only if any are configured.
func orIdentity(signers []signer) string {
	for _, s := range signers {
		if _, ok := s.(*identitySigner); ok {
			return " or identity"
		}
	}
	return ""
}
