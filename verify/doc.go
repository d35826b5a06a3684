// Package verify decides whether bytes may run on this host. It opens no file and no connection, and has no clock.
// Before it has accepted a manifest, nothing is staged, parsed as an image or fetched from there.
//
// # Trust model
//
// Only what the policy names is trusted: public keys, and identities under a pinned trust root. Everything else gets
// its trust from them, along these arrows:
//
//	public key (policy)                    trust root (policy, pinned)
//	   │                                      │ certificate authority: "for ten minutes,
//	   │                                      │ this key is release@example.org's"
//	   │                                      │ log or timestamp authority: "I saw the
//	   │                                      ▼ signature within these minutes"
//	   │                                   identity: issuer and subject match the policy
//	   │ signature over the exact bytes       │
//	   ▼                                      ▼
//	claim: cosign's statement or payload, parsed only now
//	   │ "I signed the image with digest sha256:…"
//	   ▼
//	manifest or index with that digest, parsed only now
//	   │ descriptors: digest and size            ([Verified.Descend] for an
//	   ▼                                          index's manifests)
//	config, layers, files
//
// The registry, the network, tags, mirrors, DNS and TLS are not trusted. They can withhold an image or offer an old
// one, but they cannot forge one. This package does not know which image is older: the agent refuses old releases by
// its record.
//
// # Signatures
//
// A signature is accepted if a key or an identity of the policy made it, if what it covers says explicitly that it is
// the signature of an image, and if the digest in there is that of the content. In a bundle, the predicate type says
// so: https://sigstore.dev/cosign/sign/v1. A bill of materials or a provenance statement by the same signer is about
// an image, but no permission to run it. In a simple-signing payload, the type is "cosign container image signature".
// The repository in the payload is not compared, because a mirror has another one.
//
// # Keys
//
// A key can expire ([Key].NotAfter) or be revoked. An image signed by such a key is refused with an error of its own,
// because nothing was forged: the publisher must sign it again. A signature by an expired key is still accepted if a
// log or a timestamp authority proves that it was made before; without such a proof, the clock of the host decides. A
// signature by a revoked key is never accepted, because whoever stole the key could have made it. Listing a key twice
// can only restrict it; a restriction apart from the list makes no key count.
//
// # Identities
//
// A keyless signature comes with a certificate that was valid for minutes. The library sigstore-go runs the complete
// client procedure of Sigstore, offline: it checks log entry, time, certificate chain at that time, certificate log,
// signature, issuer and subject. The time is proven by the promise of the log or by a timestamp authority, never by
// the clock of the host. Who is revoked never counts, whichever rule matches. A pattern must match the whole text. The
// library does not see what was signed: this package parses it, as strictly as for a key.
//
// # Transparency logs
//
// A rule says whether log entries are required, optional (if there are any, they must be good) or off (ignored). A log
// prevents nobody from signing, but it lets you find what was signed in your name.
//
// # Threshold
//
// Distinct signers are counted, keys and identities together. The same key under two names counts once. An identity
// rule counts once, and a person (issuer and subject) counts once, even if several rules match. A candidate that is
// not accepted is ignored: anybody who can write to the registry can add rubbish beside a good signature, and must not
// be able to block an update with it.
//
// # Evidence
//
// [Verified.Evidence] returns all that the verdict is based on, and [Policy.Again] repeats the verification by another
// policy. Stored evidence is trusted no more than a registry.
//
// # Bounds
//
// The size of content, bundles, payloads and proofs, the number of candidates and the depth of JSON are bounded. JSON
// that contains a key twice is refused, because two readers could understand it differently. So is content that can be
// read both as an index and as a manifest, or whose mediaType is not the one it was served with.
package verify
