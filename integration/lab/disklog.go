package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A diskLog stands between a host and its disk: what the host writes goes into a log, and into an overlay from which
// it is read back. The disk itself changes only when the power is cut, and then only by what the host had flushed. So
// no write survives just because it was in a cache of the machine that runs the lab.
type diskLog struct {
	host   *Host
	daemon *exec.Cmd // for a container, whose disk has to be a file
}

func (l *diskLog) file(name string) string { return filepath.Join(l.host.dir, name) }

func (l *diskLog) log() string { return l.file("writes.log") }

// point is the file at which the daemon exports the disk.
func (l *diskLog) point() string { return l.file("disk.point") }

// renew writes the durable part of the log to the disk, and starts a new log.
func (l *diskLog) renew(ctx context.Context) error {
	if _, err := os.Stat(l.log()); err == nil {
		writes, err := ReadWriteLog(l.log())
		if err != nil {
			return err
		}
		if err := writes.Replay(l.host.image, 0, PowerCut{After: len(writes.Writes)}); err != nil {
			return err
		}
	}
	for _, name := range []string{l.log(), l.point()} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			return err
		}
	}
	out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", l.host.image,
		l.file("overlay")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot make the overlay: %w\n%s", err, out)
	}
	return nil
}

// args describe the disk to QEMU's programs, as the node "disk". Flushes are logged; they need not reach the disk of
// the machine that runs the lab.
func (l *diskLog) args() []string {
	return []string{
		"--blockdev", "driver=file,node-name=image,cache.no-flush=on,filename=" + l.file("overlay"),
		"--blockdev", "driver=qcow2,node-name=overlay,cache.no-flush=on,discard=unmap,file=image",
		"--blockdev", "driver=file,node-name=log,cache.no-flush=on,filename=" + l.log(),
		"--blockdev", fmt.Sprintf("driver=blklogwrites,node-name=disk,discard=unmap,"+
			"file=overlay,log=log,log-sector-size=%d", sector),
	}
}

// plug mounts the disk for a container.
func (l *diskLog) plug(ctx context.Context) error {
	if err := l.renew(ctx); err != nil {
		return err
	}
	l.daemon = exec.Command("qemu-storage-daemon", append(l.args(), "--export",
		"type=fuse,id=point,node-name=disk,writable=on,mountpoint="+l.point())...)
	l.daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	l.daemon.Stderr = os.Stderr
	if err := l.daemon.Start(); err != nil {
		return err
	}
	err := poll(startTime, func() (bool, error) {
		st, err := os.Stat(l.point())
		return err == nil && st.Size() > 0, nil
	})
	if err != nil {
		return fmt.Errorf("cannot see the disk behind its log: %w", err)
	}
	return mountDisk(ctx, l.point(), l.host.disk, 0)
}

// cut cuts the power of a container's disk.
func (l *diskLog) cut() {
	if l.daemon == nil {
		return
	}
	_ = l.daemon.Process.Kill()
	_ = l.daemon.Wait()
	l.daemon = nil
}

// unplug detaches the mounts of a container's disk that has lost its power.
func (l *diskLog) unplug() {
	for _, at := range []string{l.host.disk, l.point()} {
		_ = unix.Unmount(at, unix.MNT_DETACH)
	}
}

// mountDisk mounts the file system at an offset of a disk, in bytes, through a loop device that clears itself when it
// is no longer used; the mount ends with the enclosure.
func mountDisk(ctx context.Context, image, at string, offset int64) error {
	options := fmt.Sprintf("loop,offset=%d", offset)
	if out, err := exec.CommandContext(ctx, "mount", "-o", options, image, at).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot mount the disk: %w\n%s", err, out)
	}
	return nil
}

// unmountDisk unmounts a disk and waits until its file system is gone. A container that starts at the same moment has a
// copy of the mount for as long as it needs to set itself up: until then, what was written may be in memory only, and
// a machine that starts from the disk does not find it.
func unmountDisk(ctx context.Context, image, at string) error {
	if err := unix.Unmount(at, 0); err != nil {
		return fmt.Errorf("cannot unmount the disk: %w", err)
	}
	err := poll(gone, func() (bool, error) {
		out, err := exec.CommandContext(ctx, "losetup", "--noheadings", "--output=NAME", "--associated", image).Output()
		return len(out) == 0, err
	})
	if err != nil {
		return fmt.Errorf("cannot see the loop device of %s go away: %w", image, err)
	}
	return nil
}

// gone is how long what was ended may take to be gone beside a lab that is busy: processes, a host, the users of a file
// system that was unmounted.
const gone = 2 * time.Minute

// CutPower ends the host at once, boots it again and returns the new stamp. If its writes are logged, what it had not
// flushed to its disk is lost.
func (h *Host) CutPower(ctx context.Context) (BootStamp, error) {
	h.cutPower()
	h.panics = nil // a kernel that stays as it is does so no longer
	if err := h.replug(ctx); err != nil {
		return BootStamp{}, err
	}
	return h.AwaitReboot(ctx, gone)
}

// replug attaches the disk again to a container that has lost its power. A machine does so when it boots.
func (h *Host) replug(ctx context.Context) error {
	if _, ok := h.way.(*nspawn); !ok || h.log == nil {
		return nil
	}
	h.log.unplug()
	return h.log.plug(ctx)
}

// Writes returns the log of what the host has written to its disk since its last full reboot.
func (h *Host) Writes() (*WriteLog, error) { return ReadWriteLog(h.log.log()) }

// AwaitWrite waits until the host writes a file that begins with a text, at or after index from of the log, and
// returns the index of that write.
func (h *Host) AwaitWrite(ctx context.Context, from int, text string, limit time.Duration) (int, error) {
	l, err := h.Writes()
	if err != nil {
		return 0, err
	}
	at := 0
	err = poll(limit, func() (bool, error) {
		if err := h.Alive(); err != nil {
			return false, err
		}
		if err := l.Follow(); err != nil {
			return false, err
		}
		found, err := l.Find(min(from, len(l.Writes)), text)
		from = max(from, len(l.Writes))
		if err != nil || len(found) == 0 {
			return false, errOr(err, ctx.Err())
		}
		at = found[0]
		return true, nil
	})
	return at, err
}

func errOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// A Recording is a disk in its first state, and everything that a host then wrote to it.
type Recording struct {
	*WriteLog
	disk string
	at   int // how many of the writes are on the disk, all of them durable
}

// Record cuts the host's power and returns its disk and its log. With [Host.Rewind] and [Host.Boot] the host boots
// from the disk as a power cut at any moment leaves it. Its writes are no longer logged.
func (h *Host) Record() (*Recording, error) {
	h.cutPower()
	h.log.unplug()
	disk, log := h.log.file("recorded.img"), h.log.file("recorded.log")
	if err := errOr(os.Rename(h.image, disk), os.Rename(h.log.log(), log)); err != nil {
		return nil, fmt.Errorf("cannot move the disk aside: %w", err)
	}
	if err := os.Remove(h.log.file("overlay")); err != nil {
		return nil, err
	}
	h.log = nil
	l, err := ReadWriteLog(log)
	return &Recording{WriteLog: l, disk: disk}, err
}

// Disk writes the disk as a cut leaves it to a file. Cuts must be given in ascending order.
func (r *Recording) Disk(ctx context.Context, c PowerCut, to string) error {
	durable := r.flushed(c.After)
	if durable < r.at {
		return fmt.Errorf("cannot rewind the disk from write %d to %d", r.at, durable)
	}
	if err := r.Replay(r.disk, r.at, PowerCut{After: durable}); err != nil {
		return err
	}
	r.at = durable
	if err := copySparse(ctx, r.disk, to); err != nil {
		return err
	}
	return r.Replay(to, r.at, c)
}

// Rewind cuts the host's power and gives it the disk that a cut of a recording leaves. It returns what e2fsck
// complains of once the journal is replayed, "" when the file system is clean.
func (h *Host) Rewind(ctx context.Context, r *Recording, c PowerCut) (string, error) {
	h.cutPower()
	_ = unix.Unmount(h.disk, unix.MNT_DETACH)
	// A new file: the kernel may still be writing to the old one.
	if err := os.RemoveAll(h.image); err != nil {
		return "", err
	}
	if err := r.Disk(ctx, c, h.image); err != nil {
		return "", err
	}
	if err := mountDisk(ctx, h.image, h.disk, h.offset); err != nil {
		return "", err
	}
	if err := unmountDisk(ctx, h.image, h.disk); err != nil {
		return "", err
	}
	root := fmt.Sprintf("%s?offset=%d", h.image, h.offset)
	out, err := exec.CommandContext(ctx, "e2fsck", "-f", "-n", root).CombinedOutput()
	if err == nil {
		out = nil
	}
	if _, ok := h.way.(*nspawn); ok {
		return string(out), mountDisk(ctx, h.image, h.disk, h.offset)
	}
	return string(out), nil
}

// Boot boots a host that has lost its power and returns the new stamp.
func (h *Host) Boot(ctx context.Context) (BootStamp, error) {
	return h.AwaitReboot(ctx, gone)
}
