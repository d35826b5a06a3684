// Package inventory answers what a layer that was unpacked once does to a tree, so that it need not be fetched again.
//
// An inventory lists the entries of the layer in their order, each with what [layer.Tree] needs of it and with the
// digest of the object that has its content. It names the blob and the diff_id that it was made from. The caller keeps
// it only if both were right.
//
// It promises that reading ends with every entry that was written, or with an [ErrUnusable]. Its checksum finds rot and
// what a power cut leaves. It is no protection against somebody who can write to the store: the seal of an image is.
//
// The file has a head in text, the entries compressed with zstd, and the sha256 of all of that at its end.
package inventory
