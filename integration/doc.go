// Package integration drives the built binaries, and nothing else of the product, on real machines.
//
// Its tests need root and a Debian machine, and have the build tag "lab": "make test" runs them, a plain "go test
// ./..." does not. Those in emulated machines are named TestVM; the long ones of them also have the tag "vm", and
// "make test-vm" runs these. The tests leave the machine as it was; package lab describes how.
package integration
