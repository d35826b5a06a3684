// Package integration drives the built binaries, and nothing else of the product, on real machines.
//
// Its tests need root and a Debian machine, and carry the build tag "lab": "make test" runs them, a plain "go test ./..."
// does not. Those in emulated machines are named TestVM; the long ones of them carry the tag "vm" too, and "make test-vm"
// runs these. The machine is left as it was; package lab says how.
package integration
