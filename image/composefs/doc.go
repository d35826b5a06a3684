// Package composefs writes and reads the metadata image of a root: one EROFS file with every name, owner, mode, time
// and attribute of a file tree. The content of a regular file is not in it, but in an object named by its fs-verity
// digest.
//
// The kernel joins the two: the image is a lower layer of an overlay, the object directory its data-only layer. The
// same tree always gives the same bytes, so the fs-verity digest of the image identifies the whole root.
//
// github.com/erofs/go-erofs writes the file system. It lacks two things, which are added afterwards: the header by
// which composefs tools recognise the file, and hard links (see links.go).
package composefs
