package main

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/umoci/oci/casext"

	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/layout"
	"github.com/updatectl/updatectl/image/publish"
)

// defaultTag is the tag in a layout that is written to when none is given.
const defaultTag = "latest"

// inLayout reads the reference to a tag in a layout that is written to. The prefix may be missing: nothing else can be
// meant.
func inLayout(arg string) (reference, dir, tag string, err error) {
	dir, tag = publish.SplitLayout(arg)
	if tag == "" {
		tag = defaultTag
	}
	if dir == "" || isArchive(arg) || strings.Contains(arg, "@") || !casext.IsValidReferenceName(tag) {
		return "", "", "", fmt.Errorf("%w %q: write oci:DIR or oci:DIR:TAG", failure.ErrReference, arg)
	}
	return layout.Prefix + dir + ":" + tag, dir, tag, nil
}

// fromLayout reads the reference to a layout that is read. Its prefix may be missing, too.
func fromLayout(arg string) string {
	if strings.HasPrefix(arg, layout.Prefix) || isArchive(arg) {
		return arg
	}
	return layout.Prefix + arg
}

func isArchive(reference string) bool { return strings.HasPrefix(reference, "oci-archive:") }

// short is as much of a digest as people need to tell two apart.
func short(d digest.Digest) string {
	const shown = len("sha256:") + 12
	return d.String()[:min(len(d), shown)] // one from a registry may be malformed
}
