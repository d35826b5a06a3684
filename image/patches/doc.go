// Package patches reads live patches and keeps them on the disk. It promises that [Store.Load] returns only bytes that
// the current policy accepts, which it verifies offline: the disk is trusted no more than a registry.
//
// A live patch is a manifest that a release lists and whose only layer is a kernel module. The store is an OCI layout,
// which ordinary tools can inspect:
//
//	index.json        the live patches, as their releases list them, and the evidence of these releases
//	blobs/sha256/…    manifests, modules, evidence
//
// Only one process may use a store at a time. The agent holds a lock for that.
package patches
