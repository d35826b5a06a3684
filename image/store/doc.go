// Package store keeps roots on disk: file contents as objects shared by all roots, and for each root a directory with
// its composefs image and what was verified about it.
//
// The promise: nothing carries its final name before it is on the disk. A root is staged in a directory of its own,
// one syncfs makes its data durable, then the objects get their names, and the last step is the rename of the root's
// directory. A power cut at any moment leaves either no root or a whole one, plus leftovers that [Store.Sweep]
// removes. A root that lost a part counts as none; staging it again completes it.
//
// One process uses a store at a time; the agent's lock sees to that.
//
//	objects/ab/cdef…      content, named by its fs-verity digest
//	roots/<ID>/root.cfs   composefs image
//	roots/<ID>/image.json what it is, see [Info]
//	roots/<ID>/evidence.json  the signed documents and signatures that led to it
//	staging/              what has no name yet
package store
