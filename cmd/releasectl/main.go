// Command releasectl is the publisher's tool: it packs root directories into
// images, signs, pushes and inspects them. What it publishes is what updatectl
// verifies and runs.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
