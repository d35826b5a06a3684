package rootfs

// configDirs are where systemd and kmod look for NAME.d; of two files with the same name, the one found first counts.
var configDirs = []string{"/etc", "/run", "/usr/local/lib", "/usr/lib"}
