// Package layout reads OCI layouts: directories and tars of them. Somebody else may write to them: no link leads out of
// a layout, what is no regular file is refused, and every read is bounded.
package layout
