//go:build manpages

package main

import (
	"io"
	"log"
	"os"

	"github.com/spf13/cobra/doc"
)

// With the build tag manpages, the program writes the manual pages of its commands into the directory of its only
// argument. The product does not contain what that needs.
func init() {
	root := newRoot(&cli{stdout: io.Discard, stderr: io.Discard})
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Section: "8", Source: "updatectl", Manual: "updatectl"}
	if err := doc.GenManTree(root, header, os.Args[1]); err != nil {
		log.Fatal(err)
	}
	os.Exit(0)
}
