// Package patches reads live patches and keeps them on the disk. It promises that what [Store.Load] returns was
// vouched for by the policy of today, offline, byte by byte: what lies on the disk is trusted no more than a registry.
//
// A live patch is a manifest whose only layer is a kernel module, listed in a release. The store is an OCI layout, so
// that ordinary tools can look at it:
//
//	index.json        the live patches as their release lists them, and the evidence of these releases
//	blobs/sha256/…    manifests, modules, evidence
//
// One process uses a store at a time; the agent's lock sees to that.
package patches
