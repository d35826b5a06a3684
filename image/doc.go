// Package image turns a verified manifest into a root on disk.
//
// [Open] accepts only what a policy has verified: a manifest, or an index from which it selects the image for this
// machine. Everything else is reached from there by digest: the configuration, the layers and their contents. [Stage]
// reads each layer once, as a stream: it checks the digests, decompresses, and stores file contents as objects. The
// tree of names stays in memory and becomes a composefs image. Only a root that can boot gets its final name in the
// store.
//
//	source ─ blob digest ─ decompress ─ diff_id ─ tar ─┬─ names ─ tree ─ root.cfs
//	                                                   └─ contents ─ objects
package image
