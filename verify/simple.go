package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	rekorpb "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/updatectl/updatectl/verify/exactjson"
)

const (
	// maxAnnotation bounds each annotation of a simple-signing signature, in bytes. The largest real one, a timestamp
	// with its certificates, has 4 KiB.
	maxAnnotation = 64 << 10
	// simpleBundleType is the oldest type of bundle. The promise of a log suffices there, and cosign 2 stores nothing
	// else.
	simpleBundleType = "application/vnd.dev.sigstore.bundle+json;version=0.1"
)

// simpleProofs converts a simple-signing signature to a bundle. The certificate chain in its annotations is left out:
// intermediate certificates must be in the pinned trust root.
func simpleProofs(c Candidate) (*bundlepb.Bundle, error) {
	if max(len(c.Certificate), len(c.LogEntry), len(c.Timestamp)) > maxAnnotation {
		return nil, fmt.Errorf("an annotation of the signature is larger than %d bytes", maxAnnotation)
	}
	material := &bundlepb.VerificationMaterial{
		Content: &bundlepb.VerificationMaterial_PublicKey{PublicKey: &commonpb.PublicKeyIdentifier{}},
	}
	if len(c.Certificate) > 0 {
		block, rest := pem.Decode(c.Certificate)
		if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, errors.New("the certificate of the signature is not one certificate in PEM form")
		}
		material.Content = &bundlepb.VerificationMaterial_Certificate{
			Certificate: &commonpb.X509Certificate{RawBytes: block.Bytes},
		}
	}
	if len(c.LogEntry) > 0 {
		entry, err := simpleLogEntry(c.LogEntry)
		if err != nil {
			return nil, fmt.Errorf("cannot read the log entry of the signature: %w", err)
		}
		material.TlogEntries = []*rekorpb.TransparencyLogEntry{entry}
	}
	if len(c.Timestamp) > 0 {
		var t struct {
			Signed []byte `json:"SignedRFC3161Timestamp"`
		}
		if err := exactjson.Unmarshal(c.Timestamp, &t); err != nil {
			return nil, fmt.Errorf("cannot read the timestamp of the signature: %w", err)
		}
		material.TimestampVerificationData = &bundlepb.TimestampVerificationData{
			Rfc3161Timestamps: []*commonpb.RFC3161SignedTimestamp{{SignedTimestamp: t.Signed}},
		}
	}
	sum := sha256.Sum256(c.Payload)
	return &bundlepb.Bundle{
		MediaType:            simpleBundleType,
		VerificationMaterial: material,
		Content: &bundlepb.Bundle_MessageSignature{MessageSignature: &commonpb.MessageSignature{
			MessageDigest: &commonpb.HashOutput{Algorithm: commonpb.HashAlgorithm_SHA2_256, Digest: sum[:]},
			Signature:     c.Signature,
		}},
	}, nil
}

// simpleLogEntry reads the log entry in an annotation of cosign.
func simpleLogEntry(data []byte) (*rekorpb.TransparencyLogEntry, error) {
	var entry struct {
		Promise []byte `json:"SignedEntryTimestamp"`
		Payload struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		} `json:"Payload"`
	}
	if err := exactjson.Unmarshal(data, &entry); err != nil {
		return nil, err
	}
	var body struct {
		Kind    string `json:"kind"`
		Version string `json:"apiVersion"`
	}
	if err := exactjson.Unmarshal(entry.Payload.Body, &body); err != nil {
		return nil, fmt.Errorf("its body: %w", err)
	}
	id, err := hex.DecodeString(entry.Payload.LogID)
	if err != nil {
		return nil, fmt.Errorf("its log: %w", err)
	}
	return &rekorpb.TransparencyLogEntry{
		LogIndex:          entry.Payload.LogIndex,
		LogId:             &commonpb.LogId{KeyId: id},
		KindVersion:       &rekorpb.KindVersion{Kind: body.Kind, Version: body.Version},
		IntegratedTime:    entry.Payload.IntegratedTime,
		InclusionPromise:  &rekorpb.InclusionPromise{SignedEntryTimestamp: entry.Promise},
		CanonicalizedBody: entry.Payload.Body,
	}, nil
}
