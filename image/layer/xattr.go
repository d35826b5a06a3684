package layer

import (
	"archive/tar"
	"fmt"
	"strings"
)

const (
	// xattrRecord is how star, GNU tar, bsdtar and every container tool write extended attributes.
	xattrRecord = "SCHILY.xattr."
	// overlayXattr steers overlayfs: an image that could write it could point its files at any object of the store.
	overlayXattr = "trusted.overlay."
)

// storable lists the namespaces EROFS can hold. Others (com.apple.*, nfs4 ACLs) are left out, as unpackers do on file
// systems without them.
var storable = []string{"user.", "trusted.", "security.", "system.posix_acl_access", "system.posix_acl_default"}

// xattrs collects the extended attributes of an entry.
func (t *Tree) xattrs(hdr *tar.Header) (map[string]string, error) {
	var xattrs map[string]string
	total := 0
	for record, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(record, xattrRecord)
		if !ok {
			continue
		}
		if err := checkXattr(hdr.Name, name, value); err != nil {
			return nil, err
		}
		if !isStorable(name) {
			continue
		}
		if total += len(name) + len(value); total > maxXattrs {
			return nil, fmt.Errorf("%w: attributes of %q have more than %d bytes", ErrLimit, hdr.Name, maxXattrs)
		}
		if xattrs == nil {
			xattrs = map[string]string{}
		}
		xattrs[name] = value
	}
	return xattrs, t.charge(total)
}

// checkXattr refuses what no honest tool writes.
func checkXattr(path, name, value string) error {
	if strings.HasPrefix(name, overlayXattr) {
		return fmt.Errorf("%w: %q has attribute %s", ErrLayer, path, name)
	}
	if name == "" || strings.ContainsRune(name, 0) {
		return fmt.Errorf("%w: %q has an attribute called %q", ErrLayer, path, name)
	}
	if len(name) > maxName || len(value) > maxXattr {
		return fmt.Errorf("%w: attribute of %q: name of %d bytes, value of %d", ErrLimit, path, len(name), len(value))
	}
	return nil
}

func isStorable(name string) bool {
	for _, prefix := range storable {
		if name == prefix || strings.HasSuffix(prefix, ".") && strings.HasPrefix(name, prefix) && name != prefix {
			return true
		}
	}
	return false
}
