package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/updatectl/updatectl/durable"
	"github.com/updatectl/updatectl/verify"
)

// evidenceName is the file with what led to the verdict about a root.
const evidenceName = "evidence.json"

// ErrNoEvidence is returned for a root of which no evidence was kept.
var ErrNoEvidence = errors.New("no evidence was kept")

// Evidence returns what led to the verdict when the root was staged. It is as it lies on the disk: verify.Policy.Again
// tells what it is worth.
func (r Root) Evidence() (verify.Evidence, error) {
	f, err := os.Open(r.evidence())
	if errors.Is(err, os.ErrNotExist) {
		return verify.Evidence{}, fmt.Errorf("%w for root %s", ErrNoEvidence, r.ID)
	}
	if err != nil {
		return verify.Evidence{}, fmt.Errorf("cannot read evidence: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, verify.MaxEvidence+1))
	if err != nil {
		return verify.Evidence{}, fmt.Errorf("cannot read evidence: %w", err)
	}
	return verify.ParseEvidence(data)
}

func (r Root) evidence() string { return filepath.Join(r.Dir, evidenceName) }

// PutEvidence keeps what led to the verdict beside the root being staged.
func (g *Staging) PutEvidence(e verify.Evidence) error {
	data, err := e.Bytes()
	if err == nil {
		err = os.WriteFile(g.path(rootsDir, evidenceName), data, 0o444)
	}
	if err != nil {
		return fmt.Errorf("cannot keep evidence: %w", Full(err))
	}
	return nil
}

// Renew replaces what is known about who vouched for a root, when it was verified again: perhaps by a new policy,
// under which the old evidence is worth nothing. The same evidence changes nothing.
func (r Root) Renew(v *verify.Verified, at time.Time) (Root, error) {
	data, err := v.Evidence().Bytes()
	if err != nil {
		return r, fmt.Errorf("cannot renew evidence: %w", err)
	}
	if old, err := os.ReadFile(r.evidence()); err == nil && bytes.Equal(old, data) {
		return r, nil
	}
	r.Info.Vouchers, r.Info.VerifiedAt = v.Vouchers(), at
	info, err := json.MarshalIndent(r.Info, "", "  ")
	if err != nil {
		return r, fmt.Errorf("cannot renew evidence: %w", err)
	}
	// The evidence first: vouchers without it would claim too much.
	if err := durable.WriteFile(r.evidence(), data, 0o444); err != nil {
		return r, fmt.Errorf("cannot renew evidence: %w", Full(err))
	}
	if err := durable.WriteFile(filepath.Join(r.Dir, infoName), append(info, '\n'), 0o444); err != nil {
		return r, fmt.Errorf("cannot renew evidence: %w", Full(err))
	}
	return r, nil
}
