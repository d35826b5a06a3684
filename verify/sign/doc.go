// Package sign makes signatures that package verify and cosign accept. It turns a digest into bytes; it does not read
// images and does not publish anything.
//
// Keys are made with "cosign generate-key-pair" or with "openssl genpkey -algorithm ed25519".
package sign
