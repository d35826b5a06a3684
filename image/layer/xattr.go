package layer

import (
	"archive/tar"
	"fmt"
	"strings"
)

const (
	// xattrRecord starts the PAX records with extended attributes that star, GNU tar, bsdtar and all container tools
	// write.
	xattrRecord = "SCHILY.xattr."
	// overlayXattr starts the attributes that control overlayfs. An image that could set them could map its files to
	// any object in the store.
	overlayXattr = "trusted.overlay."
)

// storable lists the namespaces that EROFS can store. Others (com.apple.*, NFSv4 ACLs) are dropped, as unpackers do on
// file systems without them.
var storable = []string{"user.", "trusted.", "security.", "system.posix_acl_access", "system.posix_acl_default"}

// xattrs returns the extended attributes of an entry.
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
			return nil, fmt.Errorf("%w: the attributes of %q have more than %d bytes", ErrLimit, hdr.Name, maxXattrs)
		}
		if xattrs == nil {
			xattrs = map[string]string{}
		}
		xattrs[name] = value
	}
	return xattrs, t.charge(total)
}

// checkXattr refuses attributes that no honest tool writes.
func checkXattr(path, name, value string) error {
	if strings.HasPrefix(name, overlayXattr) {
		return fmt.Errorf("%w: %q has the attribute %s", ErrLayer, path, name)
	}
	if name == "" || strings.ContainsRune(name, 0) {
		return fmt.Errorf("%w: %q has an attribute called %q", ErrLayer, path, name)
	}
	if len(name) > maxName || len(value) > maxXattr {
		return fmt.Errorf("%w: an attribute of %q has a name of %d bytes and a value of %d", ErrLimit, path, len(name),
			len(value))
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
