package pid1

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"testing"
)

// TestUserManagers: each lingering user that is known has a manager.
func TestUserManagers(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"alice", "gone", "bob"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lookup := func(name string) (*user.User, error) {
		uid, known := map[string]string{"alice": "1000", "bob": "1001"}[name]
		if !known {
			return nil, fmt.Errorf("nobody")
		}
		return &user.User{Uid: uid}, nil
	}
	got, err := userManagers(dir, lookup)
	if want := []string{"user@1000.service", "user@1001.service"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := userManagers(filepath.Join(dir, "none"), lookup); err != nil || got != nil {
		t.Errorf("without the directory: %q, %v", got, err)
	}
}
