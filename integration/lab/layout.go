package lab

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// EditConfig changes the configuration of the one image in an OCI layout, and every digest above it: a publisher's
// mistake that is consistent and can be signed.
func EditConfig(layout string, edit func(config map[string]any)) error {
	return editOnly(layout, func(image map[string]any) error {
		manifest, err := readJSON(blob(layout, image["digest"].(string)))
		if err != nil {
			return err
		}
		pointer := manifest["config"].(map[string]any)
		config, err := readJSON(blob(layout, pointer["digest"].(string)))
		if err != nil {
			return err
		}
		edit(config)
		if err := writeBlob(layout, config, pointer); err != nil {
			return err
		}
		return writeBlob(layout, manifest, image)
	})
}

// SwapModule replaces the module of the one live patch that the release in an OCI layout lists: a mistake that
// releasectl does not make.
func SwapModule(layout string, content []byte) error {
	return editOnly(layout, func(release map[string]any) error {
		index, err := readJSON(blob(layout, release["digest"].(string)))
		if err != nil {
			return err
		}
		entry, err := only(index, "manifests")
		if err != nil {
			return err
		}
		manifest, err := readJSON(blob(layout, entry["digest"].(string)))
		if err != nil {
			return err
		}
		layer, err := only(manifest, "layers")
		if err != nil {
			return err
		}
		if err := storeBlob(layout, content, layer); err != nil {
			return err
		}
		if err := writeBlob(layout, manifest, entry); err != nil {
			return err
		}
		return writeBlob(layout, index, release)
	})
}

// editOnly changes the only thing in an OCI layout that has a tag.
func editOnly(layout string, edit func(descriptor map[string]any) error) error {
	name := filepath.Join(layout, "index.json")
	index, err := readJSON(name)
	if err != nil {
		return err
	}
	d, err := tagged(index)
	if err != nil {
		return err
	}
	if err := edit(d); err != nil {
		return err
	}
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}

// tagged returns the only descriptor of an index that has a tag. Tools also list untagged parts.
func tagged(index map[string]any) (map[string]any, error) {
	var found []map[string]any
	all, _ := index["manifests"].([]any)
	for _, d := range all {
		d := d.(map[string]any)
		if notes, _ := d["annotations"].(map[string]any); notes["org.opencontainers.image.ref.name"] != nil {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("cannot edit a layout: it has %d tags, not one", len(found))
	}
	return found[0], nil
}

// only returns the only descriptor in a list of a document.
func only(document map[string]any, list string) (map[string]any, error) {
	all, _ := document[list].([]any)
	if len(all) != 1 {
		return nil, fmt.Errorf("cannot edit a layout: it has %d %s, not one", len(all), list)
	}
	return all[0].(map[string]any), nil
}

func blob(layout, digest string) string {
	return filepath.Join(layout, "blobs", "sha256", digest[len("sha256:"):])
}

func readJSON(path string) (map[string]any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read layout: %w", err)
	}
	var value map[string]any
	if err := json.Unmarshal(text, &value); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return value, nil
}

// writeBlob stores a document and updates its descriptor.
func writeBlob(layout string, value, descriptor map[string]any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return storeBlob(layout, text, descriptor)
}

// storeBlob stores content and updates its descriptor.
func storeBlob(layout string, content []byte, descriptor map[string]any) error {
	descriptor["digest"] = fmt.Sprintf("sha256:%x", sha256.Sum256(content))
	descriptor["size"] = len(content)
	if err := os.WriteFile(blob(layout, descriptor["digest"].(string)), content, 0o644); err != nil {
		return fmt.Errorf("cannot write layout: %w", err)
	}
	return nil
}
