package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/host"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/agent/transition"
	"github.com/updatectl/updatectl/image"
	"github.com/updatectl/updatectl/image/patches"
	"github.com/updatectl/updatectl/image/release"
	"github.com/updatectl/updatectl/image/source"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/livepatch"
	"github.com/updatectl/updatectl/switcher/pid1"
	"github.com/updatectl/updatectl/verify"
)

// The exit codes; docs/exit-codes.md is for the people who script on them.
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
)

// answer is an exit code that is no error: the question was answered.
type answer int

func (a answer) Error() string { return fmt.Sprintf("answered with exit code %d", int(a)) }

func isAnswer(err error) bool {
	var a answer
	return errors.As(err, &a)
}

// failures lists what an error means to a caller: the exit code, and what to do about it. The first that fits counts.
var failures = []struct {
	err  error
	code int
	hint string
}{
	// The first: what comes of it is worth more than why.
	{agent.ErrTrying, exitBlocked, "wait for updatectl-confirm.service, or look why it failed; `updatectl rollback` goes back"},
	{record.ErrUnhealthy, exitUnhealthy, "`updatectl status` says where the host is; a newer image is taken by itself, this one by `updatectl apply --retry`"},
	{transition.ErrBooted, exitError, "the host comes back in its last good root, by itself; `updatectl status` tells how it went"},
	{etc.ErrPattern, exitUsage, "mend [state] adopt: paths or globs below /etc"},
	{config.ErrConfig, exitUsage, "mend it and ask `updatectl config check`; `updatectl config example` shows every key"},
	{source.ErrReference, exitUsage, "write host/repository:tag, host/repository@sha256:…, oci:DIR:TAG, or oci-archive:FILE:TAG"},
	{roots.ErrFullReboot, exitFullReboot, "`updatectl apply --level full` boots the kernel for it; [switch] fallback = \"full\" lets apply do so by itself"},
	{record.ErrBusy, exitBlocked, "try again later, or let --wait wait for it"},
	{record.ErrGivenUp, exitBlocked, "`updatectl apply --retry` takes it all the same"},
	{pid1.ErrInhibited, exitBlocked, "try again when its holder is done; `systemd-inhibit --list` shows it"},
	{live.ErrSoftRebootHelps, exitBlocked, "`updatectl apply --level soft` restarts userspace in the same root and loads it before the services start"},
	{livepatch.ErrStalled, exitBlocked, "try again when these tasks have moved on: `updatectl livepatch apply`; their stacks are in the log"},
	{livepatch.ErrBusy, exitBlocked, "`updatectl livepatch list` shows it; try again when it has ended"},
	{release.ErrBarrier, exitBlocked, "apply the release that comes first, from wherever its publisher keeps it"},
	{record.ErrBlocked, exitBlocked, "`updatectl status` tells what is going on; try again later"},
	{release.ErrExpired, exitStale, "its publisher has to publish it again, with a larger sequence; is this host's clock right?"},
	{release.ErrStale, exitStale, "who serves this, and why? `updatectl apply --allow-downgrade` goes back on purpose, `updatectl rollback` to a root that is here"},
	{live.ErrOtherKernel, exitIncompatible, "`updatectl livepatch list` shows which kernel runs and which each is for; the kernel is as it was"},
	{patches.ErrModule, exitIncompatible, "its publisher has to mend the release; the kernel is as it was"},
	{livepatch.ErrUnsupported, exitIncompatible, "only a full reboot brings this kernel's fixes, or another kernel"},
	{release.ErrIncompatible, exitIncompatible, "follow another reference; [source] compatible is this machine's class; nothing was staged"},
	{agent.ErrEvidence, exitNotTrusted, "have the image signed under the policy of today and `updatectl stage` it again, or stage another one"},
	{patches.ErrSpoilt, exitNotTrusted, "`updatectl livepatch apply` fetches it again; is the disk all right? The kernel is as it was"},
	{verify.ErrRevoked, exitNotTrusted, "have it signed by a key that counts; nothing was staged"},
	{verify.ErrExpired, exitNotTrusted, "have it signed again; if the host's clock is wrong, mend that first; nothing was staged"},
	{verify.ErrLog, exitNotTrusted, "sign it with a transparency log, or check log in the [[verify.…]] rule; nothing was staged"},
	{verify.ErrTimestamp, exitNotTrusted, "sign it with a transparency log or a timestamp authority that the trust root knows; nothing was staged"},
	{verify.ErrWrongIdentity, exitNotTrusted, "check [[verify.identity]], or ask who published this image; nothing was staged"},
	{verify.ErrUnsigned, exitNotTrusted, "sign it with `releasectl sign` or `cosign sign`; nothing was staged"},
	{verify.ErrWrongKey, exitNotTrusted, "check [verify] keys, or ask who published this image; nothing was staged"},
	{verify.ErrThreshold, exitNotTrusted, "have the other key holders sign, or check [verify] threshold; nothing was staged"},
	{verify.ErrDigest, exitNotTrusted, "what was served is not what was signed: check the registry and what lies between; nothing was staged"},
	{verify.ErrNotTrusted, exitNotTrusted, "ask who published this image; nothing was staged"},
	{image.ErrPlatform, exitIncompatible, "publish the image for this platform, or follow another reference"},
	{image.ErrNotBootable, exitIncompatible, "an image needs systemd as its init and an os-release; nothing was staged"},
	{agent.ErrHostTooOld, exitIncompatible, "bring the host to a release with systemd 254 or newer first, such as Debian 13"},
	{roots.ErrIncompatible, exitIncompatible, "`updatectl plan` lists the checks"},
	{image.ErrNoSpace, exitNoSpace, "`updatectl gc` frees what nothing needs; else give the file system of /var/lib/updatectl more room"},
	{source.ErrAuth, exitUnreachable, "log in as root with podman or docker, so that their credentials file has this registry"},
	{source.ErrNotFound, exitUnreachable, "check the name and the tag, of [source] image or of --from"},
	{source.ErrNoTLS, exitUnreachable, "serve it by TLS, or list its host in [source] plain-http: signatures are checked all the same"},
	{source.ErrNoLayout, exitUnreachable, "check the path, of [source] image or of --from; is what it lies on mounted?"},
	{source.ErrSource, exitUnreachable, "the host is as it was; try again when the source answers"},
	{host.ErrPermission, exitError, "run it as root, for example with sudo"},
	{pid1.ErrNoUnit, exitError, "install updatectl with its units (`make install`, then `systemctl daemon-reload`)"},
	{pid1.ErrJob, exitError, "`journalctl -u updatectl-guard -u updatectl-arm` says why; the host goes on as it is"},
	{livepatch.ErrKernel, exitError, "the kernel's own words are in `journalctl -k`; the kernel is as it was"},
	{livepatch.ErrTaken, exitError, "`updatectl livepatch list` shows what is loaded"},
	{live.ErrNoLivePatch, exitError, "`updatectl livepatch list` shows what there is"},
	{livepatch.ErrNotLoaded, exitError, "`updatectl livepatch list` shows what there is"},
	{patches.ErrNotStored, exitError, "`updatectl livepatch apply` fetches it again"},
	{roots.ErrNoRoot, exitError, "`updatectl status` lists the roots"},
	{transition.ErrSwitch, exitError, "`updatectl status` and `journalctl -u updatectl-arm -u updatectl-confirm` say more"},
	// What a disk says, whoever wrote to it: the record, /etc and the graft need room as images do.
	{unix.ENOSPC, exitNoSpace, "`updatectl gc` frees what nothing needs; else make room on that file system; the host goes on as it is"},
	{unix.EDQUOT, exitNoSpace, "raise the quota of that file system, or make room; the host goes on as it is"},
	{unix.EROFS, exitError, "that file system is mounted read-only, perhaps because its disk failed: see `journalctl -k`, then `mount -o remount,rw`"},
	{unix.EIO, exitError, "a disk could not read or write: see `journalctl -k`; the host goes on as it is"},
	{unix.ENOMEM, exitError, "the kernel had no memory left: try again; the host goes on as it is"},
	// The last: what else went wrong says more.
	{pid1.ErrDeaf, exitBlocked, "userspace may be restarting just now: try again in a moment; `updatectl status` tells how it went"},
}

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
	if isUsage(err) {
		return exitUsage
	}
	return exitError
}

// hint says what to do about an error; "" when the error says it all.
func hint(err error) string {
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return "if the certificate is right, make the host trust who issued it, on Debian with update-ca-certificates(8)"
	}
	for _, f := range failures {
		if errors.Is(err, f.err) {
			return f.hint
		}
	}
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return "run it as root, for example with sudo"
	}
	if exitCode(err) == exitUsage {
		return "`updatectl --help` lists the commands, `updatectl COMMAND --help` their flags"
	}
	return ""
}
