package lab

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// EditConfig changes the configuration of the one image in an OCI layout, and what names it: a publisher's mistake that
// is consistent, and can be signed.
func EditConfig(layout string, edit func(config map[string]any)) error {
	index, err := readJSON(filepath.Join(layout, "index.json"))
	if err != nil {
		return err
	}
	images, ok := index["manifests"].([]any)
	if !ok || len(images) != 1 {
		return fmt.Errorf("cannot edit layout %s: not one image", layout)
	}
	image := images[0].(map[string]any)
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
	if err := writeBlob(layout, manifest, image); err != nil {
		return err
	}
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(layout, "index.json"), text, 0o644)
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

// writeBlob stores a document and makes its descriptor name it.
func writeBlob(layout string, value, descriptor map[string]any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	descriptor["digest"] = fmt.Sprintf("sha256:%x", sha256.Sum256(text))
	descriptor["size"] = len(text)
	if err := os.WriteFile(blob(layout, descriptor["digest"].(string)), text, 0o644); err != nil {
		return fmt.Errorf("cannot write layout: %w", err)
	}
	return nil
}
