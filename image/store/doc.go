// Package store answers which roots are on the disk, and whether they still are what was staged. It keeps file
// contents as objects that all roots share, and a directory for each root with its composefs image and the evidence
// that it was verified by.
//
// It promises that nothing has its final name before it is on the disk. A root is staged in a directory of its own.
// One syncfs makes its data durable, then the objects are renamed, and the root's directory last. A power cut at any
// moment leaves either no root or a complete one, and leftovers that [Store.Sweep] removes. A root that has lost a
// part counts as missing; staging it again completes it, and replaces what is damaged. No file of a root is removed
// before its replacement has its name.
//
// Only one process may use a store at a time. The agent holds a lock for that.
//
//	objects/ab/cdef…      content, named by its fs-verity digest
//	roots/<ID>/root.cfs   composefs image
//	roots/<ID>/image.json what the image is, see [Info]
//	roots/<ID>/evidence.json  the signed documents and the signatures
//	roots/<ID>/layer-<digest>  what a layer became, see package inventory
//	staging/              what has no final name yet
package store
