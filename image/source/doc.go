// Package source reads published images: manifests, signatures and layers, from a registry, an OCI layout directory or
// a tar of one, with the same code after the byte stream.
//
// What it returns is not trusted by that alone. It promises less and exactly: content asked for by digest has that
// digest and size, or the read ends in an error that wraps verify.ErrDigest; nothing is read without a bound; a silent
// server is given up on; and "there is no signature" is only said when the source answered that question.
package source
