package verify

import (
	"encoding/json"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/updatectl/updatectl/verify/exactjson"
)

// The media types of Docker's schema 2.
const (
	DockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// IsIndex reports whether a media type is that of an index.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == DockerManifestList
}

// IsManifest reports whether a media type is that of the manifest of an image.
func IsManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == DockerManifest
}

// checkContent checks that content is what mediaType says, and nothing else. If a document were an index to one reader
// and a manifest to another, one signature would be valid for two images (CVE-2021-41190).
func checkContent(content []byte, mediaType string) error {
	if !IsIndex(mediaType) && !IsManifest(mediaType) {
		return &refused{fmt.Sprintf("the media type %q is neither that of a manifest nor that of an index", mediaType),
			ErrMalformed}
	}
	var c struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		Blobs         json.RawMessage `json:"blobs"`
		FSLayers      json.RawMessage `json:"fsLayers"`
		Manifests     json.RawMessage `json:"manifests"`
	}
	if err := exactjson.Unmarshal(content, &c); err != nil {
		return &refused{err.Error(), ErrMalformed}
	}
	// OCI 1.0 documents can lack the field, those of Docker cannot.
	named := c.MediaType != "" || mediaType == DockerManifest || mediaType == DockerManifestList
	switch {
	case c.SchemaVersion != 2:
		return &refused{fmt.Sprintf("its schemaVersion is %d and not 2", c.SchemaVersion), ErrMalformed}
	case named && c.MediaType != mediaType:
		return &refused{fmt.Sprintf("it was served as %s, and its mediaType is %q", mediaType, c.MediaType),
			ErrMalformed}
	case c.FSLayers != nil || c.Blobs != nil:
		return &refused{"it has fields of another type of manifest", ErrMalformed}
	case IsIndex(mediaType) && (c.Manifests == nil || c.Config != nil || c.Layers != nil):
		return &refused{"it was served as an index, but is not one", ErrMalformed}
	case IsManifest(mediaType) && (c.Manifests != nil || c.Config == nil || c.Layers == nil):
		return &refused{"it was served as a manifest, but is not one", ErrMalformed}
	}
	return nil
}
