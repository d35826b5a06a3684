package source

import (
	"net"
	"slices"

	distribution "oras.land/oras-go/v2/registry"
)

// Address returns host:port of the registry in a reference, or "" for a reference to something on disk, or one that
// cannot be read.
func Address(reference string, plainHTTP []string) string {
	ref, err := distribution.ParseReference(reference)
	if err != nil || localPrefix(reference) != "" {
		return ""
	}
	host := ref.Host()
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	if slices.Contains(plainHTTP, ref.Registry) {
		return net.JoinHostPort(host, "80")
	}
	return net.JoinHostPort(host, "443")
}
