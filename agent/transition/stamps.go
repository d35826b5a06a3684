package transition

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/level"
)

var (
	// ErrSwitch: the host did not arrive in the root that was asked for.
	ErrSwitch = errors.New("the switch failed")
	// ErrBooted: going back by a soft reboot could not be had.
	ErrBooted = errors.New("the kernel is booted instead")
)

const (
	StampFile = switcher.RunDir + "/armed.json"
	// What confirm and the guard leave for each other where the record may not be written.
	BackFile    = switcher.RunDir + "/back.json"
	VerdictFile = switcher.RunDir + "/verdict.json"
	resumeStamp = switcher.RunDir + "/started"
)

func RemoveStamp(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove the stamp of an earlier switch: %w", err)
	}
	return nil
}

func (mv *Mover) WriteStamp(s level.Stamp) error {
	text, err := json.Marshal(s)
	if err == nil {
		err = record.WriteAtomically(mv.Path(StampFile), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot leave the stamp of the switch: %w", err)
	}
	return nil
}

// ReadStamp reads what the arming step left; nil when it left nothing.
func ReadStamp(file string) *level.Stamp {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var s level.Stamp
	if json.Unmarshal(text, &s) != nil {
		return nil
	}
	return &s
}

// verdictNote is why confirm wants to leave the running root. It lies in /run, so that the guard, which acts when confirm
// cannot, can say so.
type verdictNote struct {
	Root   string    `json:"root"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

func (mv *Mover) LeaveVerdict(root, reason string) {
	text, err := json.Marshal(verdictNote{Root: root, Reason: reason, At: mv.Now().UTC()})
	if err == nil {
		err = record.WriteAtomically(mv.Path(VerdictFile), text, 0o600)
	}
	if err != nil {
		mv.Log.Warn("cannot leave the verdict for the guard", zap.Error(err))
	}
}

// ReadVerdict is why confirm found a root not healthy, "" where it has not said so.
func ReadVerdict(file, root string) string {
	var v verdictNote
	text, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(text, &v) != nil || v.Root != root {
		return ""
	}
	return v.Reason
}
