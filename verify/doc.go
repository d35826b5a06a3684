// Package verify decides whether bytes may run on this host: bytes in, verdict
// out. It opens no file and no connection, and nothing is staged, parsed as an
// image or fetched further before it has said yes.
//
// # Trust model
//
// Only the public keys in the policy are trusted. Everything else earns trust
// from them, one arrow at a time:
//
//	public key (policy)
//	   │ signature over the exact bytes
//	   ▼
//	claim: cosign's statement or payload, read only now
//	   │ "I signed the image with digest sha256:…"
//	   ▼
//	manifest or index, whose bytes have that digest, read only now
//	   │ descriptors: digest and size            ([Verified.Descend] for an
//	   ▼                                          index's manifests)
//	config, layers, files
//
// The registry, the network, tags, mirrors, DNS and TLS are not trusted: they
// can withhold an image or offer an old one, and cannot make up another one.
// That an old release is not offered again is for the record of the agent to
// see; this package knows no time and no order.
//
// # What counts as a signature
//
// A signature counts when a key of the policy made it, what it covers says in
// so many words that it is the signature of an image, and the digest it names
// is that of the content. In a bundle that is the predicate type
// https://sigstore.dev/cosign/sign/v1: a bill of materials or a provenance
// statement signed by the same key is about an image and no permission to run
// it. In a simple-signing payload it is the type "cosign container image
// signature". The repository named in that payload is not compared, as a mirror
// has another one. Entries of a transparency log are neither asked for nor
// looked at for signatures by key.
//
// Distinct keys are counted for the threshold, by what they are and not by
// what they are called. A candidate that says nothing useful is passed over:
// whoever can write to the registry can add rubbish beside a good signature and
// must not be able to block an update with it.
//
// # Bounds
//
// Content, bundles and payloads have a size limit, candidates a number, JSON a
// depth. JSON with a key twice is refused, as two readers may see two things in
// it; so is content that can be read as an index and as a manifest, or whose own
// mediaType is not the one it was served as.
package verify
