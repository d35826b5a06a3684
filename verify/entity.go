package verify

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	sigstore "github.com/sigstore/sigstore-go/pkg/verify"
)

// maxProofs bounds the log entries and the timestamps of a signature. Real signatures have one of each; each one takes
// a millisecond per rule.
const maxProofs = 8

// entity presents a candidate to the Sigstore library: certificate, log entries, timestamps and signature, but not
// what was signed.
type entity struct {
	*bundle.Bundle
	artifact []byte // the signed document, if that is not in an envelope
}

func newEntity(s *sealed) (*entity, error) {
	proofs, err := s.proofs()
	if err != nil {
		return nil, err
	}
	m := proofs.GetVerificationMaterial()
	if n := max(len(m.GetTlogEntries()), len(m.GetTimestampVerificationData().GetRfc3161Timestamps())); n > maxProofs {
		return nil, fmt.Errorf("it has %d log entries or timestamps, more than %d", n, maxProofs)
	}
	e := &entity{artifact: s.artifact}
	err = caught(func() (err error) {
		e.Bundle, err = bundle.NewBundle(proofs)
		return err
	})
	return e, err
}

// Version hides the version of the bundle. For some versions, the library also accepts signatures by old clients over
// a hash that does not fit the key.
func (e *entity) Version() (string, error) { return "", nil }

// SignatureContent hides the statement in an envelope from the library: readStatement parses it, strictly.
func (e *entity) SignatureContent() (sigstore.SignatureContent, error) {
	content, err := e.Bundle.SignatureContent()
	if envelope, ok := content.(*bundle.Envelope); ok {
		return unread{envelope}, nil
	}
	return content, err
}

type unread struct{ *bundle.Envelope }

func (u unread) EnvelopeContent() sigstore.EnvelopeContent { return u }
func (u unread) Statement() (*intoto.Statement, error)     { return &intoto.Statement{}, nil }

// signed returns what the library checks the signature against: the document, unless the envelope contains it.
func (e *entity) signed() sigstore.ArtifactPolicyOption {
	if e.GetDsseEnvelope() != nil {
		return sigstore.WithoutArtifactUnsafe()
	}
	return sigstore.WithArtifact(bytes.NewReader(e.artifact))
}

// logged reports whether there are log entries, good or not.
func (e *entity) logged() bool { return len(e.GetVerificationMaterial().GetTlogEntries()) > 0 }

// LogEntry says where a signature is in a transparency log.
type LogEntry struct {
	Log   string `json:"log,omitempty"` // the address of the log in the trust root
	ID    string `json:"log_id"`        // sha256 of the public key of the log, in hex
	Index int64  `json:"index"`
}

// String returns the entry as text for people.
func (l LogEntry) String() string {
	name := l.Log
	if name == "" {
		name = l.ID
	}
	return fmt.Sprintf("entry %d of %s", l.Index, name)
}

// alone is an entity with only one of its log entries.
type alone struct {
	*entity
	entry *tlog.Entry
}

func (a alone) TlogEntries() ([]*tlog.Entry, error) { return []*tlog.Entry{a.entry}, nil }

// logEntry returns the first log entry that proves the signature on its own.
func (e *entity) logEntry(r root.TrustedMaterial) (LogEntry, error) {
	entries, err := e.TlogEntries()
	if err != nil {
		return LogEntry{}, err
	}
	for _, entry := range entries {
		if _, err := sigstore.VerifyTlogEntry(alone{e, entry}, r, 1, true); err != nil {
			continue
		}
		id := hex.EncodeToString([]byte(entry.LogKeyID()))
		l := LogEntry{Log: r.RekorLogs()[id].BaseURL, ID: id, Index: entry.LogIndex()}
		if !entry.HasInclusionPromise() { // only a promise covers the index of the whole log
			l.Index = entry.TransparencyLogEntry().GetInclusionProof().GetLogIndex()
		}
		return l, nil
	}
	return LogEntry{}, errors.New("no log entry proves it")
}

// earliest returns the earliest of some times, in UTC.
func earliest(seen []time.Time) time.Time {
	var first time.Time
	for _, t := range seen {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	return first.UTC()
}

// caught turns a panic of the library into an error. Anybody can add a bundle to an image, and must not be able to
// stop the agent with it.
func caught(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it cannot be read: %v", p)
		}
	}()
	return do()
}
