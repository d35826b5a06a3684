package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/adoption"
	"github.com/updatectl/updatectl/agent/changes"
	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/fleetlock"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/pause"
	"github.com/updatectl/updatectl/agent/recheck"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/agent/turn"
	"github.com/updatectl/updatectl/agent/unattended"
	"github.com/updatectl/updatectl/agent/volatile"
	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/failure"
	"github.com/updatectl/updatectl/image/fetcher"
	"github.com/updatectl/updatectl/image/patches"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/store"
	"github.com/updatectl/updatectl/switcher/bootloader"
	"github.com/updatectl/updatectl/switcher/etc/adopted"
	"github.com/updatectl/updatectl/switcher/etc/difference"
	"github.com/updatectl/updatectl/switcher/imagekernel"
	"github.com/updatectl/updatectl/switcher/livepatch"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/verify"
)

// The exit codes; docs/exit-codes.md documents them for scripts.
const (
	exitDone         = 0
	exitError        = 1
	exitUsage        = 2
	exitAvailable    = 10
	exitFullReboot   = 11
	exitBlocked      = 12
	exitNotTrusted   = 20
	exitStale        = 21
	exitIncompatible = 22
	exitNoSpace      = 30
	exitUnreachable  = 31
	exitUnhealthy    = 40
	exitInterrupted  = 130
)

// answer is an exit code that is no error but the answer to a question.
type answer int

func (a answer) Error() string { return fmt.Sprintf("answered with exit code %d", int(a)) }

func isAnswer(err error) bool {
	var a answer
	return errors.As(err, &a)
}

// failures lists what an error means to a caller: the exit code, and what to do about it. The first one that matches
// counts.
var failures = []struct {
	err  error
	code int
	hint string
}{
	{errInterrupted, exitInterrupted, "run the same command again"},
	// How a switch ended says more than the error that ended it.
	{agent.ErrTrying, exitBlocked,
		"wait for updatectl-confirm.service, or see why it failed; `updatectl rollback` rolls back"},
	{record.ErrUnhealthy, exitUnhealthy,
		"`updatectl status` shows where the host is; a newer image is taken automatically, one that was given up by " +
			"`updatectl apply --retry`"},
	{transition.ErrFullRebootFollows, exitError,
		"the host resumes its last good root automatically; `updatectl status` shows how it went"},
	{adopted.ErrPattern, exitUsage, "fix [state] adopt: it takes paths or globs below /etc"},
	{difference.ErrNotTaken, exitUsage, "`updatectl etc diff` lists what differs from the image"},
	{changes.ErrNoImage, exitError,
		"name a root that `updatectl roots` lists; `updatectl plan` shows what an image would change here"},
	{config.ErrConfig, exitUsage,
		"fix it, then run `updatectl config check`; `updatectl config example` shows every key"},
	{failure.ErrReference, exitUsage,
		"write the reference as host/repository:tag, host/repository@sha256:…, oci:DIR:TAG, or oci-archive:FILE:TAG"},
	{bootloader.ErrUnsupported, exitFullReboot,
		"with `kernel = \"host\"` in [boot], a full reboot starts the host's own kernel; docs/kernel.md lists the boot " +
			"loaders"},
	{roots.ErrFullReboot, exitFullReboot,
		"`updatectl apply --level full` reboots for it; with [switch] fallback = \"full\", apply does so " +
			"automatically"},
	{record.ErrBusy, exitBlocked, "try again later, or wait for it with --wait"},
	{record.ErrGivenUp, exitBlocked, "`updatectl apply --retry` takes it anyway"},
	{pid1.ErrInhibited, exitBlocked, "try again when its holder is done; `systemd-inhibit --list` shows it"},
	{pause.ErrPaused, exitBlocked, "`updatectl unpause` ends the pause; `updatectl rollback` works all the same"},
	{turn.ErrRollout, exitBlocked, "wait for its publisher; `updatectl apply --ignore-rollout` takes the release now"},
	{turn.ErrLock, exitBlocked,
		"try again later; `updatectl slot show` shows what this host holds, and docs/fleetlock.md how to free a slot"},
	{turn.ErrHook, exitBlocked, "try again when it agrees; `updatectl status` shows that the host stays in its root"},
	{unattended.ErrNotNow, exitBlocked, "`updatectl apply` switches now; [schedule] says when the timer may"},
	{live.ErrSoftRebootHelps, exitBlocked,
		"`updatectl apply --level soft` restarts userspace in the same root, and loads the live patch before services " +
			"start"},
	{livepatch.ErrStalled, exitBlocked,
		"try again with `updatectl livepatch apply` when these tasks have moved on; their stacks are in the log"},
	{livepatch.ErrBusy, exitBlocked, "`updatectl livepatch list` shows it; try again when it has ended"},
	{release.ErrBarrier, exitBlocked, "apply the release that comes first, from wherever its publisher keeps it"},
	{record.ErrLost, exitError,
		"`updatectl confirm` begins a new record, with the running root as the good one; pins and refusals are forgotten"},
	{record.ErrUnmounted, exitError,
		"`systemctl status` of that unit shows why; when it is active, a full reboot or `updatectl apply` continues with " +
			"the last good root"},
	{record.ErrDamaged, exitError,
		"move the file aside, and run `updatectl confirm`: it begins a new record, with the running root as the good one"},
	{volatile.ErrRuns, exitBlocked, "`updatectl rollback` returns to the last good root, and drops what was changed here"},
	{volatile.ErrNot, exitBlocked, "the host stays in its root; docs/volatile.md says what a copy takes"},
	{record.ErrBlocked, exitBlocked, "`updatectl status` shows what is going on; try again later"},
	{release.ErrExpired, exitStale,
		"its publisher has to publish it again, with a larger sequence; check this host's clock, too"},
	{release.ErrStale, exitStale,
		"check which registry or mirror served this; `updatectl apply --allow-downgrade` takes it on purpose, " +
			"`updatectl rollback` returns to a root that is here"},
	{live.ErrOtherKernel, exitIncompatible,
		"`updatectl livepatch list` shows which kernel runs and which each is for; the kernel is unchanged"},
	{patches.ErrModule, exitIncompatible, "its publisher has to fix the release; the kernel is unchanged"},
	{livepatch.ErrUnsupported, exitIncompatible, "only a full reboot brings this kernel's fixes, or another kernel"},
	{release.ErrStream, exitIncompatible,
		"check which registry or mirror served this, and [source] stream; nothing was staged"},
	{release.ErrIncompatible, exitIncompatible,
		"follow another reference in [source] image, or name this machine's class in [source] compatible; nothing was " +
			"staged"},
	{recheck.ErrEvidence, exitNotTrusted,
		"have the image signed under today's policy and `updatectl stage` it again, or stage another one"},
	{patches.ErrSpoilt, exitNotTrusted,
		"`updatectl livepatch apply` fetches it again; check the disk; the kernel is unchanged"},
	{verify.ErrRevoked, exitNotTrusted, "its publisher has to sign it with a key that is accepted; nothing was staged"},
	{verify.ErrExpired, exitNotTrusted,
		"if the host's clock is wrong, set it; otherwise the publisher has to sign it again; nothing was staged"},
	{verify.ErrLog, exitNotTrusted,
		"check log in the [[verify.…]] rule, or ask who published this image; nothing was staged"},
	{verify.ErrTimestamp, exitNotTrusted,
		"check trust-root in the [[verify.…]] rule, or ask who published this image; nothing was staged"},
	{verify.ErrWrongIdentity, exitNotTrusted,
		"check [[verify.identity]], or ask who published this image; nothing was staged"},
	{verify.ErrUnsigned, exitNotTrusted, "ask who published this image; nothing was staged"},
	{verify.ErrWrongKey, exitNotTrusted, "check [verify] keys, or ask who published this image; nothing was staged"},
	{verify.ErrThreshold, exitNotTrusted,
		"check [verify] threshold, or ask who published this image; nothing was staged"},
	{verify.ErrDigest, exitNotTrusted,
		"what was served is not what was signed: check the registry and the network path to it; nothing was staged"},
	{verify.ErrNotTrusted, exitNotTrusted, "ask who published this image; nothing was staged"},
	{image.ErrPlatform, exitIncompatible, "publish the image for this platform, or follow another reference"},
	{image.ErrNotBootable, exitIncompatible, "an image needs systemd as its init and an os-release; nothing was staged"},
	{agent.ErrHostTooOld, exitIncompatible,
		"upgrade the host to a distribution with systemd 254 or newer first, such as Debian 13"},
	{roots.ErrIncompatible, exitIncompatible, "`updatectl plan` lists the checks"},
	{imagekernel.ErrHost, exitIncompatible,
		"with `kernel = \"host\"` in [boot], a full reboot starts the host's own kernel; docs/kernel.md says what is needed"},
	{image.ErrNoSpace, exitNoSpace,
		freeRoom + "; otherwise give the file system of /var/lib/updatectl more room"},
	{failure.ErrAuth, exitUnreachable,
		"log in as root with podman or docker, so that their credentials file has this registry"},
	{failure.ErrNotFound, exitUnreachable, "check the name and the tag in [source] image or --from"},
	{failure.ErrNoTLS, exitUnreachable,
		"serve it by TLS, or list its host in [source] plain-http: signatures are checked all the same"},
	{failure.ErrNoLayout, exitUnreachable,
		"check the path in [source] image or --from, and whether its file system is mounted"},
	{failure.ErrSource, exitUnreachable, "the host is unchanged; try again when the source answers"},
	{host.ErrPermission, exitError, asRoot},
	{fetcher.ErrForRootAlone, exitError,
		"`chmod a+rx` the program updatectl: registries are asked by a process of another user, which has to run it"},
	{pid1.ErrNoUnit, exitError, "install updatectl with its units (`make install`, then `systemctl daemon-reload`)"},
	{pid1.ErrJob, exitError, "`journalctl -u updatectl-guard -u updatectl-arm` shows why; the host stays in its root"},
	{livepatch.ErrKernel, exitError, "`journalctl -k` shows what the kernel says; the kernel is unchanged"},
	{livepatch.ErrTaken, exitError, "`updatectl livepatch list` shows what is loaded"},
	{live.ErrNoLivePatch, exitError, "`updatectl livepatch list` shows what there is"},
	{livepatch.ErrNotLoaded, exitError, "`updatectl livepatch list` shows what there is"},
	{patches.ErrNotStored, exitError, "`updatectl livepatch apply` fetches it again"},
	{store.ErrDamaged, exitError,
		"`updatectl fsck` names what is damaged, and `updatectl fsck --repair` fetches it again; the host stays in its root"},
	{fleetlock.ErrDamaged, exitError, "the host stays in its root; docs/fleetlock.md says how to free a slot"},
	{roots.ErrHostRoot, exitError, "name a staged root; `updatectl roots` lists them"},
	{roots.ErrNoRoot, exitError, "`updatectl roots` lists them"},
	{adoption.ErrAdopted, exitError, "`updatectl adopt --from-host PATH` fetches what was forgotten"},
	{transition.ErrSwitch, exitError,
		"`updatectl status` and `journalctl -u updatectl-arm -u updatectl-confirm` show more"},
	// What a disk says, whoever wrote to it: the record, /etc and the graft need room as images do.
	{unix.ENOSPC, exitNoSpace,
		freeRoom + "; otherwise make room on that file system; the host stays in its root"},
	{unix.EDQUOT, exitNoSpace, "raise the quota of that file system, or make room; the host stays in its root"},
	{imagekernel.ErrInstall, exitIncompatible,
		"with `kernel = \"host\"` in [boot], a full reboot starts the host's own kernel; the host stays in its root"},
	{unix.EROFS, exitError,
		"that file system is mounted read-only, perhaps because its disk failed: see `journalctl -k`, then `mount " +
			"-o remount,rw`"},
	{unix.EIO, exitError, "a disk could not read or write: see `journalctl -k`; the host stays in its root"},
	{unix.ENOMEM, exitError, "the kernel had no memory left: try again; the host stays in its root"},
	// The last: what else went wrong says more.
	{pid1.ErrUnresponsive, exitBlocked,
		"userspace may be restarting just now: try again in a moment; `updatectl status` shows how it went"},
}

// freeRoom begins the hints for a full disk. A person who has not read the help of gc must not lose an /etc.
const freeRoom = "`updatectl gc` frees what nothing needs; `gc --all` also removes roots that were left, with their " +
	"/etc (`gc --all --dry-run` lists them)"

// asRoot is the hint for who lacks the permission.
const asRoot = "run it as root, for example with sudo"

// hasOutcome reports whether an error says how a switch went: that is worth more than that the command was interrupted.
func hasOutcome(err error) bool {
	for _, outcome := range []error{
		agent.ErrTrying, record.ErrUnhealthy, transition.ErrFullRebootFollows, transition.ErrSwitch,
	} {
		if errors.Is(err, outcome) {
			return true
		}
	}
	return false
}

// exitCode returns the exit code for what a command ended with.
func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	var a answer
	if errors.As(err, &a) {
		return int(a)
	}
	for _, f := range failures {
		if errors.Is(err, f.err) {
			return f.code
		}
	}
	if errors.As(err, new(usageError)) {
		return exitUsage
	}
	return exitError
}

// hint returns what to do about an error, "" when the error says it all.
func hint(err error) string {
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return "if the certificate is right, make the host trust who issued it, on Debian with update-ca-certificates(8)"
	}
	var a advised
	if errors.As(err, &a) {
		return a.hint
	}
	for _, f := range failures {
		if errors.Is(err, f.err) {
			return f.hint
		}
	}
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return asRoot
	}
	var u usageError
	if errors.As(err, &u) {
		return fmt.Sprintf("`%s --help` shows what it takes", cmp.Or(u.command, "updatectl"))
	}
	return ""
}
