package arch

import ocispec "github.com/opencontainers/image-spec/specs-go/v1"

// Platform returns the name of a platform for people: "arm64" or "arm/v7", with the operating system only if that is
// not Linux.
func Platform(p ocispec.Platform) string {
	name := p.Architecture
	if p.OS != "" && p.OS != "linux" {
		name = p.OS + "/" + name
	}
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return name
}
