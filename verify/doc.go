// Package verify decides whether bytes may run on this host: bytes in, verdict out. It opens no file and no
// connection, has no clock, and nothing is staged, parsed as an image or fetched further before it has said yes.
//
// # Trust model
//
// Only what the policy names is trusted: public keys, and identities under a pinned trust root. Everything else earns
// trust from them, one arrow at a time:
//
//	public key (policy)                    trust root (policy, pinned)
//	   │                                      │ certificate authority: "for ten minutes,
//	   │                                      │ this key is release@example.org's"
//	   │                                      │ log or timestamp authority: "I saw the
//	   │                                      ▼ signature within these minutes"
//	   │                                   identity: issuer and subject as the policy asks
//	   │ signature over the exact bytes       │
//	   ▼                                      ▼
//	claim: cosign's statement or payload, read only now
//	   │ "I signed the image with digest sha256:…"
//	   ▼
//	manifest or index, whose bytes have that digest, read only now
//	   │ descriptors: digest and size            ([Verified.Descend] for an
//	   ▼                                          index's manifests)
//	config, layers, files
//
// The registry, the network, tags, mirrors, DNS and TLS are not trusted: they can withhold an image or offer an old
// one, and cannot make up another one. That an old release is not offered again is for the record of the agent to see;
// this package knows no order.
//
// # What counts as a signature
//
// A signature counts when a key or an identity of the policy made it, what it covers says in so many words that it is
// the signature of an image, and the digest it names is that of the content. In a bundle that is the predicate type
// https://sigstore.dev/cosign/sign/v1: a bill of materials or a provenance statement by the same signer is about an
// image and no permission to run it. In a simple-signing payload it is the type "cosign container image signature".
// The repository named in that payload is not compared, as a mirror has another one.
//
// # Keys
//
// A key may end ([Key].NotAfter) or be revoked, and an image that such a key signed is refused with words of its own:
// the publisher must sign again, and nobody has forged anything. An ended key's signature goes on counting when a log
// or a timestamp authority proves that it is older than the end; without such proof the host's clock decides. A
// revoked key's never counts: who has the key could have made it. Listing a key again can only restrict it.
//
// # Identities
//
// A keyless signature comes with a certificate that lived for minutes. The library sigstore-go goes through Sigstore's
// whole client procedure, offline: log entry, time, certificate chain at that time, certificate log, signature, issuer
// and subject. The time is proven by the log's promise or by a timestamp authority, never by this host's clock. A
// pattern must match the whole text. What was signed stays hidden from the library; it is read here, as strictly as a
// key's.
//
// # Transparency logs
//
// A rule says of its signer's log entries that they are required, optional (none, or good ones) or off (not looked
// at). A log keeps nobody from signing; it makes that what was signed in your name can be found.
//
// # Threshold
//
// Distinct signers are counted, keys and identities together. Keys are distinct by what they are, not by what they are
// called. An identity rule counts once, and a person (issuer and subject) counts once, whatever rules fit. A candidate
// that says nothing useful is passed over: whoever can write to the registry can add rubbish beside a good signature
// and must not be able to block an update with it.
//
// # Evidence
//
// [Verified.Evidence] is what led to the verdict, and [Policy.Again] repeats it by the policy of another day. Kept
// evidence is trusted no more than a registry.
//
// # Bounds
//
// Content, bundles, payloads and what comes with them have a size limit, candidates a number, JSON a depth. JSON with
// a key twice is refused, as two readers may see two things in it; so is content that can be read as an index and as a
// manifest, or whose own mediaType is not the one it was served as.
package verify
