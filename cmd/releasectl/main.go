// Command releasectl is the publisher's tool: it packs root directories into images, lists them in releases, and
// signs, pushes and inspects both. What it publishes is what updatectl verifies and runs.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
