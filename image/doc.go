// Package image turns a verified manifest into a root on disk.
//
// [Open] takes what a policy has verified, never bare bytes: a manifest, or an index of which it picks the image for
// this machine. Everything after that is reached by digest from there: the configuration, the layers, and what the
// layers unpack to. [Stage] streams the layers once, from the source through the digests, the decompressor and the
// archive into the object store; the tree of names stays in memory and becomes a composefs image. Only a root that can
// boot gets a name in the store.
//
//	source ─ blob digest ─ decompress ─ diff_id ─ tar ─┬─ names ─ tree ─ root.cfs
//	                                                   └─ contents ─ objects
package image
