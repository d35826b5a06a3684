package store

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/updatectl/updatectl/image/fsverity"
	"github.com/updatectl/updatectl/verify"
)

// Schema is the schema of image.json.
const Schema = "updatectl.image/v1"

// Info describes a root. It is kept as image.json beside the composefs image.
type Info struct {
	Schema    string        `json:"schema"`
	Digest    digest.Digest `json:"digest"`    // of the image's manifest
	Reference string        `json:"reference"` // where it was fetched from
	Version   string        `json:"version,omitempty"`

	Platform Platform `json:"platform"`
	OS       OS       `json:"os"`
	Systemd  int      `json:"systemd,omitempty"` // major version, 0 if unknown
	Init     string   `json:"init"`              // path of the program that becomes PID 1
	Kernels  []string `json:"kernels,omitempty"` // releases that have modules in the image
	// KernelMin is the oldest kernel that the publisher names, such as "6.12"; "" for none.
	KernelMin string `json:"kernel_min,omitempty"`
	HasAgent  bool   `json:"has_agent"` // the image has its own updatectl
	// Missing lists the top-level directories that every host needs and the image lacks. They cannot be made in a
	// read-only root.
	Missing []string `json:"missing,omitempty"`

	Vouchers   []verify.Voucher `json:"vouchers"`
	VerifiedAt time.Time        `json:"verified_at"`
	StagedAt   time.Time        `json:"staged_at"`

	RootDigest fsverity.Digest `json:"root_digest"` // of root.cfs
	Files      int             `json:"files"`       // names in the tree
	Size       int64           `json:"size"`        // bytes of all files
	NewBytes   int64           `json:"new_bytes"`   // of these, bytes that the store did not have

	Sum string `json:"sum"` // of image.json; the last member
}

// Platform is the platform that the image was built for.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// OS has the fields of the image's os-release.
type OS struct {
	ID           string `json:"id,omitempty"`
	VersionID    string `json:"version_id,omitempty"`
	PrettyName   string `json:"pretty_name,omitempty"`
	ImageVersion string `json:"image_version,omitempty"`
}
