package mount

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrNotVerified means that the kernel cannot verify what is read from a root.
var ErrNotVerified = errors.New("the kernel does not verify the root")

// Verity is how much of a root the kernel has to verify.
type Verity int

const (
	// VerityAuto makes the kernel verify every object of an image that has fs-verity itself, if the kernel can.
	VerityAuto Verity = iota
	// VerityRequire makes it an ErrNotVerified if the image has no fs-verity, or the kernel cannot verify objects.
	VerityRequire
	// VerityLenient is VerityAuto for a way back: if a root cannot be mounted so, it is mounted without. A host that is
	// stranded is worse off than one whose good root is not verified any more.
	VerityLenient
)

// verified joins the layers of a root, of which the EROFS image is attached at r.Scratch, as r.Verity says.
//
// An image has fs-verity only if all of its objects had it when it was staged. So an object without it, or with another
// digest than the image says, was put there since: reading it is an EIO. The graft has no objects, and is not affected.
func verified(r Root) (*Tree, error) {
	has, err := hasVerity(r.CFS)
	if err != nil || !has {
		if r.Verity == VerityRequire {
			return nil, errors.Join(fmt.Errorf("%w: %s has no fs-verity", ErrNotVerified, r.CFS), err)
		}
		return overlay(r, false)
	}
	tree, err := overlay(r, true)
	if err == nil {
		return tree, nil
	}
	if r.Verity == VerityRequire {
		return nil, fmt.Errorf("%w: %w", ErrNotVerified, err)
	}
	if r.Verity == VerityLenient || errors.Is(err, unix.EINVAL) { // before Linux 6.6
		return overlay(r, false)
	}
	return nil, err
}

// hasVerity reports whether the kernel verifies each read of a file.
func hasVerity(path string) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, 0, &st); err != nil {
		return false, fmt.Errorf("cannot look at %s: %w", path, err)
	}
	return st.Attributes&unix.STATX_ATTR_VERITY != 0, nil
}
