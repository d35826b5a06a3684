// Package packing makes an image of a root directory, or of a tar of one. Packing the same tree twice gives the same
// manifest digest.
package packing
