package report

import (
	"fmt"
	"strings"

	"github.com/updatectl/updatectl/verify"
)

// signedBy names the signers in a line.
func signedBy(vouchers []verify.Voucher) string {
	var names []string
	for _, v := range vouchers {
		names = append(names, voucherText(v))
	}
	return strings.Join(names, ", ")
}

// voucherText says who signed, in which form, and what proves it.
func voucherText(v verify.Voucher) string {
	details := []string{string(v.Form)}
	if v.Issuer != "" {
		details = append(details, "known to "+v.Issuer)
	}
	if v.Log != (verify.LogEntry{}) {
		details = append(details, v.Log.String())
	}
	if !v.SignedAt.IsZero() {
		details = append(details, "signed "+v.SignedAt.Format("2006-01-02 15:04:05 MST"))
	}
	return fmt.Sprintf("%s (%s)", v.Signer, strings.Join(details, "; "))
}
