// Package source reads published images: manifests, signatures and layers. A registry, an OCI layout directory and a
// tar of one differ only in where the bytes come from; everything after that is the same code.
//
// What it returns is not yet trusted. It promises this: content that is requested by digest has that digest and size,
// or reading it ends with a verify.ErrDigest; every read is bounded; it gives up on a server that sends nothing; and
// an image is reported as unsigned only if the source answered that question. Its errors are those of package failure.
package source
