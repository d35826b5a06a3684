package livepatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fake is a kernel simulated by files, in which the content of a module is its name.
type fake struct {
	Kernel
	t *testing.T
	// refuse is the error of Insert; stays leaves the module in the kernel even so.
	refuse error
	stays  bool
	// stall keeps a patch in transition when it is enabled, stallBack when it is disabled.
	stall     bool
	stallBack atomic.Bool
	// plain makes modules that patch nothing.
	plain bool
	log   []string
}

func newFake(t *testing.T, files map[string]string) *fake {
	f := &fake{t: t}
	f.Kernel = Kernel{Root: t.TempDir(), Pause: time.Millisecond, Insert: f.insert, Remove: f.remove}
	f.write(patchDir+"/.keep", "")
	for name, text := range files {
		f.write(name, text)
	}
	return f
}

func (f *fake) write(name, text string) {
	f.t.Helper()
	file := f.path(name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) insert(module []byte) error {
	name := string(module)
	f.log = append(f.log, "insert "+name)
	if f.refuse != nil && !f.stays {
		return f.refuse
	}
	f.write(moduleDir+"/"+name+"/refcnt", "1")
	if f.refuse != nil {
		return f.refuse
	}
	if f.plain {
		return nil
	}
	f.write(patchDir+"/"+name+"/transition", map[bool]string{true: "1\n", false: "0\n"}[f.stall])
	f.write(patchDir+"/"+name+"/enabled", "1\n")
	go f.obey(name)
	return nil
}

// obey does what the kernel does a while after 0 was written to a patch's enabled.
func (f *fake) obey(name string) {
	for {
		time.Sleep(time.Millisecond)
		enabled, err := os.ReadFile(f.path(patchDir, name, "enabled"))
		if err != nil {
			return // the test is over
		}
		if string(enabled) != "0" {
			continue
		}
		if !f.stallBack.Load() {
			os.RemoveAll(f.path(patchDir, name))
		}
		return
	}
}

func (f *fake) remove(name string) error {
	f.log = append(f.log, "remove "+name)
	if _, patching := f.patch(name); patching {
		return unix.EWOULDBLOCK
	}
	return os.RemoveAll(f.path(moduleDir, name))
}

// task adds a process with one thread to /proc.
func (f *fake) task(pid int, name, state, flags, unit, stack string) {
	dir := fmt.Sprintf("/proc/%d", pid)
	task := fmt.Sprintf("%s/task/%d", dir, pid)
	f.write(task+"/patch_state", state+"\n")
	f.write(task+"/comm", name+"\n")
	f.write(task+"/stack", stack)
	f.write(dir+"/stat", fmt.Sprintf("%d (%s) S 1 1 1 0 -1 %s 0 0", pid, name, flags))
	f.write(dir+"/cgroup", "0::/system.slice/"+unit+"\n")
	f.write(dir+"/cmdline", name+"\x00")
}

const soon = 250 * time.Millisecond

func TestLoad(t *testing.T) {
	effective := map[string]string{
		patchDir + "/fix/enabled": "1\n", patchDir + "/fix/transition": "0\n", moduleDir + "/fix/refcnt": "1",
	}
	for name, c := range map[string]struct {
		files  map[string]string
		change func(*fake)
		signed bool
		class  error // nil: it is effective afterwards
		want   string
		log    string
		left   bool // whether a module of that name is in the kernel afterwards
	}{
		"loaded":            {log: "insert fix", left: true},
		"effective already": {files: effective, left: true},
		"switched off, module left": {
			files: map[string]string{moduleDir + "/fix/refcnt": "0"}, log: "remove fix,insert fix", left: true,
		},
		"no live patching": {
			change: func(f *fake) { os.RemoveAll(f.path(patchDir)) }, class: ErrUnsupported,
			want: "CONFIG_LIVEPATCH",
		},
		"modules disabled": {
			files: map[string]string{"/proc/sys/kernel/modules_disabled": "1\n"}, class: ErrUnsupported,
			want: "modules_disabled is 1",
		},
		"modules enabled": {
			files: map[string]string{"/proc/sys/kernel/modules_disabled": "0\n"}, log: "insert fix", left: true,
		},
		"locked down": {
			files: map[string]string{"/sys/kernel/security/lockdown": "none [integrity] confidentiality\n"},
			class: ErrKernel, want: "locked down (integrity), and fix carries no signature",
		},
		"locked down, signed": {
			files:  map[string]string{"/sys/kernel/security/lockdown": "none [integrity] confidentiality\n"},
			signed: true, log: "insert fix", left: true,
		},
		"no lockdown": {
			files: map[string]string{"/sys/kernel/security/lockdown": "[none] integrity confidentiality\n"},
			log:   "insert fix", left: true,
		},
		"signatures forced": {
			files: map[string]string{moduleDir + "/module/parameters/sig_enforce": "Y\n"}, class: ErrKernel,
			want: "module.sig_enforce",
		},
		"somebody's transition": {
			files: map[string]string{patchDir + "/theirs/enabled": "1", patchDir + "/theirs/transition": "1"},
			class: ErrBusy, want: "in transition: theirs",
		},
		"leaving": {
			files: map[string]string{
				patchDir + "/fix/enabled":    "0",
				patchDir + "/fix/transition": "1",
				moduleDir + "/fix/refcnt":    "1",
			},
			class: ErrBusy,
			want:  "in transition: fix",
			left:  true,
		},
		"another of that name": {
			files: map[string]string{moduleDir + "/fix/notes/.note.gnu.build-id": "another"}, class: ErrTaken,
			want: "built from something else", left: true,
		},
		"the same of that name": {
			files: map[string]string{
				patchDir + "/fix/enabled":                   "1",
				patchDir + "/fix/transition":                "0",
				moduleDir + "/fix/notes/.note.gnu.build-id": "note",
			},
			left: true,
		},
		"wrong kernel": {
			change: func(f *fake) { f.refuse = unix.ENOEXEC }, class: ErrKernel,
			want: "built for another kernel (ENOEXEC)", log: "insert fix",
		},
		"wrong key": {
			change: func(f *fake) { f.refuse = unix.EKEYREJECTED }, class: ErrKernel, want: "EKEYREJECTED",
			log: "insert fix",
		},
		"not permitted": {
			change: func(f *fake) { f.refuse = unix.EPERM }, class: ErrKernel, want: "EPERM", log: "insert fix",
		},
		"wrong function": {
			change: func(f *fake) { f.refuse = unix.EINVAL }, class: ErrKernel, want: "EINVAL", log: "insert fix",
		},
		"an error without words": {
			change: func(f *fake) { f.refuse = unix.EIO }, class: ErrKernel, want: "input/output error",
			log: "insert fix",
		},
		"refused and left": {
			change: func(f *fake) { f.refuse, f.stays = unix.EINVAL, true }, class: ErrKernel, want: "EINVAL",
			log: "insert fix,remove fix",
		},
		"not a live patch": {
			change: func(f *fake) { f.plain = true }, class: ErrKernel, want: "patches nothing",
			log: "insert fix,remove fix",
		},
		"stalled": {
			change: func(f *fake) {
				f.stall = true
				f.task(70, "pump", "0", "0", "pump.service", "[<0>] pump_wait+0x1/0x2\n[<0>] do_exit+0x3/0x4\n")
			},
			class: ErrStalled,
			want:  "pump (process 70, pump.service, in pump_wait+0x1/0x2); it was reverted, and the kernel is as before",
			log:   "insert fix,remove fix",
		},
		"stalled both ways": {
			change: func(f *fake) {
				f.stall = true
				f.stallBack.Store(true)
				f.task(70, "pump", "0", "0", "pump.service", "")
				f.task(71, "drain", "1", "0", "drain.service", "")
			},
			class: ErrStalled,
			want:  "it is being reverted, which stalls, too: drain (process 71, drain.service)",
			log:   "insert fix",
			left:  true,
		},
		"stalled by nobody": {
			change: func(f *fake) { f.stall = true }, class: ErrStalled, want: "none is visible in /proc",
			log: "insert fix,remove fix",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, c.files)
			if c.change != nil {
				c.change(f)
			}
			err := f.Load(context.Background(),
				Module{Name: "fix", Content: []byte("fix"), Note: []byte("note"), Signed: c.signed}, soon)
			if !errors.Is(err, c.class) || c.class == nil && err != nil ||
				c.class != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("Load: %v; want %v with %q", err, c.class, c.want)
			}
			if got := strings.Join(slices.Compact(f.log), ","); got != c.log { // the kernel may not let go at once
				t.Errorf("the kernel was asked for %q, want %q", got, c.log)
			}
			if f.loaded("fix") != c.left {
				t.Errorf("a module is left: %v, want %v", f.loaded("fix"), c.left)
			}
			if p, _ := f.patch("fix"); p.Effective() != (c.class == nil) {
				t.Errorf("the patch is %+v", p)
			}
		})
	}
}

// A transition that nobody watches any more is watched by the next Load.
func TestTransitionIsTakenOver(t *testing.T) {
	for _, ends := range []bool{true, false} {
		f := newFake(t, map[string]string{
			patchDir + "/fix/enabled": "1", patchDir + "/fix/transition": "1", moduleDir + "/fix/refcnt": "1",
		})
		go f.obey("fix")
		if ends {
			time.AfterFunc(5*time.Millisecond, func() { f.write(patchDir+"/fix/transition", "0") })
		}
		deadline := soon
		if ends {
			deadline = time.Minute // which it does not need
		}
		err := f.Load(context.Background(), Module{Name: "fix", Content: []byte("fix")}, deadline)
		if ends != (err == nil) || !ends && !errors.Is(err, ErrStalled) ||
			slices.Contains(f.log, "insert fix") || f.loaded("fix") != ends {
			t.Errorf("ends %v: %v, %v, loaded %v", ends, err, f.log, f.loaded("fix"))
		}
	}
}

// A Load that is cancelled leaves no transition behind.
func TestLoadIsCancelled(t *testing.T) {
	f := newFake(t, nil)
	f.stall = true
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	var stalled *Stalled
	if err := f.Load(ctx, Module{Name: "fix", Content: []byte("fix")}, time.Hour); !errors.As(err, &stalled) ||
		stalled.Back != nil || f.loaded("fix") {
		t.Errorf("%v, loaded %v", err, f.loaded("fix"))
	}
	err := f.Load(ctx, Module{Name: "fix", Content: []byte("fix")}, time.Hour)
	if !errors.Is(err, context.DeadlineExceeded) || len(f.log) != 2 {
		t.Errorf("%v, %v", err, f.log)
	}
}

func TestRevert(t *testing.T) {
	ctx := context.Background()
	f := newFake(t, map[string]string{patchDir + "/theirs/enabled": "1", patchDir + "/theirs/transition": "0"})
	if err := f.Revert(ctx, "fix", soon); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("%v", err)
	}
	if err := f.Load(ctx, Module{Name: "fix", Content: []byte("fix")}, soon); err != nil {
		t.Fatal(err)
	}
	f.write(patchDir+"/theirs/transition", "1")
	if err := f.Revert(ctx, "fix", soon); !errors.Is(err, ErrBusy) {
		t.Errorf("while another one is in transition: %v", err)
	}
	f.write(patchDir+"/theirs/transition", "0")
	if err := f.Revert(ctx, "fix", soon); err != nil || f.loaded("fix") {
		t.Errorf("%v, loaded %v", err, f.loaded("fix"))
	}

	if err := f.Load(ctx, Module{Name: "fix", Content: []byte("fix")}, soon); err != nil {
		t.Fatal(err)
	}
	f.stallBack.Store(true)
	f.write(patchDir+"/fix/transition", "1") // as the kernel has it when the 0 is written
	f.task(70, "pump", "1", "0", "pump.service", "")
	f.task(71, "done", "0", "0", "done.service", "")
	f.task(72, "idle", "-1", "0", "idle.service", "")
	err := f.Revert(ctx, "fix", soon)
	var stalled *Stalled
	if !errors.As(err, &stalled) || !stalled.Backwards || len(stalled.Blockers) != 1 ||
		!strings.Contains(err.Error(), "off the code of fix: pump (process 70, pump.service)") ||
		!strings.Contains(err.Error(), "takes no other live patch before that has ended") {
		t.Errorf("%v", err)
	}
}

func TestClean(t *testing.T) {
	f := newFake(t, map[string]string{
		moduleDir + "/old/refcnt": "0", moduleDir + "/on/refcnt": "1",
		patchDir + "/on/enabled": "1", patchDir + "/on/transition": "0",
	})
	for name, want := range map[string]bool{"old": true, "on": false, "none": false} {
		if cleaned, err := f.Clean(name); cleaned != want || err != nil {
			t.Errorf("%s: %v, %v", name, cleaned, err)
		}
	}
	if f.loaded("old") || !f.loaded("on") {
		t.Error("the wrong one was taken out")
	}
}

func TestPatches(t *testing.T) {
	f := newFake(t, map[string]string{
		patchDir + "/a/enabled": "1\n", patchDir + "/a/transition": "0\n", patchDir + "/a/replace": "1\n",
		patchDir + "/b/enabled": "1\n", patchDir + "/b/transition": "1\n",
		patchDir + "/c/enabled": "0\n", patchDir + "/c/transition": "1\n",
		patchDir + "/d/enabled": "1\n", patchDir + "/d/transition/unreadable": "",
		patchDir + "/leaving/vmlinux/x": "", moduleDir + "/a/notes/.note.gnu.build-id": "note",
	})
	got, err := f.Patches()
	want := []Patch{{"a", true, false, true, "note"}, {"b", true, true, false, ""},
		{"c", false, true, false, ""}, {"d", true, true, false, ""}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if !got[0].Effective() || got[1].Effective() || got[2].Effective() {
		t.Error("only the first is effective")
	}
	if none, err := (Kernel{Root: t.TempDir()}).Patches(); err != nil || none == nil || len(none) != 0 {
		t.Errorf("a kernel without live patching has %v, %v", none, err)
	}
}

// Blockers says which tasks a soft reboot ends.
func TestBlockers(t *testing.T) {
	const thread = "2129984" // PF_KTHREAD | PF_NOFREEZE | PF_FORKNOEXEC
	f := newFake(t, nil)
	f.task(1, "systemd", "0", "4194560", "init.scope", "")
	f.task(40, "kworker/0:1", "0", thread, "", "[<0>] worker_thread+0x1/0x2\n")
	f.task(70, "a) (b", "0", "4194560", "pump.service", "")
	f.task(71, "survivor", "0", "4194560", "guard.service", "")
	f.task(72, "root-daemon", "0", "4194560", "mdmon.service", "")
	f.task(73, "done", "1", "4194560", "done.service", "")
	f.write("/proc/72/cmdline", "@/sbin/mdmon\x00")
	f.write("/proc/70/task/170/patch_state", "0\n")
	f.write("/proc/70/task/170/comm", "pump-thread\n")
	f.write("/proc/80/task/80/patch_state", "0\n") // it has ended meanwhile
	group := f.path("/sys/fs/cgroup/system.slice/guard.service")
	if err := os.MkdirAll(group, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(group, "trusted.survive_final_kill_signal", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range f.Blockers(Patch{Enabled: true}) {
		got = append(got, fmt.Sprintf("%s ends=%v", b, b.Ends))
	}
	want := []string{
		"systemd (process 1, init.scope) ends=false",
		"kworker/0:1 (process 40, of the kernel, in worker_thread+0x1/0x2) ends=false",
		"a) (b (process 70, pump.service) ends=true",
		"survivor (process 71, guard.service) ends=false",
		"root-daemon (process 72, mdmon.service) ends=false",
		"pump-thread (process 70, thread 170, pump.service) ends=true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestClearedBySoftReboot(t *testing.T) {
	for name, c := range map[string]struct {
		blockers []Blocker
		want     bool
	}{
		"services":               {[]Blocker{{Ends: true}, {Ends: true}}, true},
		"a thread of the kernel": {[]Blocker{{Ends: true}, {Kernel: true}}, false},
		"nobody known":           {nil, false},
	} {
		if got := (&Stalled{Blockers: c.blockers}).ClearedBySoftReboot(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Of many tasks, only the first are named.
func TestManyBlockers(t *testing.T) {
	text := (&Stalled{Name: "fix", Blockers: make([]Blocker, 100)}).Error()
	if !strings.Contains(text, "and 92 more") {
		t.Errorf("%s", text)
	}
}

// The kernel of another tree can be read, not changed.
func TestHostOfAnotherTree(t *testing.T) {
	k := Host(t.TempDir())
	if err := k.Insert(nil); err == nil || !strings.Contains(err.Error(), "only the running kernel") {
		t.Errorf("%v", err)
	}
	if err := k.Remove("x"); err == nil {
		t.Error("removed")
	}
}

// The real system call gets a module from memory: the kernel reads it and answers that it is none.
func TestInsertReachesTheKernel(t *testing.T) {
	err := insert([]byte("not a module"))
	if !errors.Is(err, unix.ENOEXEC) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOSYS) {
		t.Errorf("finit_module: %v; want ENOEXEC, or EPERM or ENOSYS where modules cannot be loaded", err)
	}
}
