package report

import (
	"fmt"
	"io"

	"github.com/updatectl/updatectl/agent/recheck"
)

// Rechecked writes who vouches for a root by the policy of today.
func Rechecked(w io.Writer, r recheck.Rechecked) {
	fmt.Fprintf(w, "Trusted: %s%s, verified %s.\n", short(r.Root), detail("version", r.Version),
		r.VerifiedAt.Format("2006-01-02 15:04"))
	for _, v := range r.Vouchers {
		fmt.Fprintf(w, "  signed by\t%s\n", voucherText(v))
	}
}
