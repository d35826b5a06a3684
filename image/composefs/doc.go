// Package composefs writes and reads the metadata image of a root: every name, owner, mode, time and attribute of a
// file tree in one EROFS file, with the content of each regular file left to an object named by its fs-verity digest.
//
// The kernel joins the two: the image is a lower layer of an overlay, the object directory its data-only layer. The
// same tree always gives the same bytes, so the fs-verity digest of the image stands for the whole root.
//
// github.com/erofs/go-erofs writes the file system. Two things it has no words for are put in afterwards: the header
// by which composefs tools know the file, and hard links (see links.go).
package composefs
