// Package sign makes the signatures that package verify accepts and cosign verifies: the publisher's half. Keys and
// images stay where they are; it turns a digest into bytes to publish, and publishing them is somebody else's work.
//
// Keys are made with cosign ("cosign generate-key-pair") or openssl ("openssl genpkey -algorithm ed25519").
package sign
