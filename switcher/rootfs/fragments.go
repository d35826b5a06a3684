package rootfs

// configDirs are where systemd and kmod look for NAME.d. Of several files with one name, the first counts.
var configDirs = []string{"/etc", "/run", "/usr/local/lib", "/usr/lib"}
