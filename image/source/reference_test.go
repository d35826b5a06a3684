package source

import (
	"errors"
	"strings"
	"testing"

	"github.com/updatectl/updatectl/image/failure"
)

// FuzzReference reads what people write in [source] image. What is accepted has an address or is on disk, and gets
// another tag in the same place.
func FuzzReference(f *testing.F) {
	for _, r := range []string{
		"registry.example.org:5000/os:1", "registry.example.org/os:1@sha256:" + strings.Repeat("0", 64), "oci:/srv/a:b/c",
		"oci:dir:1", "oci-archive:os.tar@sha256:" + strings.Repeat("0", 64), "oci:@", "/srv/layout", "[::1]:5000/os:1",
	} {
		f.Add(r)
	}
	f.Fuzz(func(t *testing.T, reference string) {
		s, err := Open(reference, Options{})
		if err != nil {
			if !errors.Is(err, failure.ErrReference) && !errors.Is(err, failure.ErrUnreachable) {
				t.Errorf("%q: %v has no class", reference, err)
			}
			return
		}
		if s.String() != reference || (Address(reference, nil) == "") != IsLocal(reference) {
			t.Errorf("%q is opened as %q, at %q", reference, s, Address(reference, nil))
		}
		other := WithTag(reference, "other")
		if _, err := Open(other, Options{}); err != nil || Address(other, nil) != Address(reference, nil) {
			t.Errorf("%q with another tag is %q: %v", reference, other, err)
		}
		if again := WithTag(other, "other"); again != other {
			t.Errorf("%q with its own tag is %q", other, again)
		}
	})
}
