//go:build lab

package integration

import (
	"strings"
	"testing"

	"github.com/updatectl/updatectl/integration/lab"
)

// TestWithdrawnTrust revokes a key in one root and rolls back to older ones, whose /etc still trusts it: the
// revocation holds everywhere, it is said, and a full reboot into such a root is refused if the operator wants that.
func TestWithdrawnTrust(t *testing.T) {
	beside(t, lab.Nspawn)
	s := newSite(t, "withdrawn")
	s.settlesAtOnce()
	next, err := lab.NewPublisher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.switches("apply")
	s.runs(s.roots["1"], "1")
	s.updatectl(exitDone, "pin", s.roots["1"])
	s.publish("2", "os/server:stable")
	s.switches("apply")
	s.runs(s.roots["2"], "2")
	s.revoke(next) // nothing is run in this root but the rollback

	const kept = "the key release.pub is revoked (the laptop was stolen): the configuration of "
	for _, to := range []string{s.roots["1"], "host"} {
		said := "/var/lib/said-" + short(to)
		before, err := s.host.Stamp(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.host.Run(t.Context(), "sh", "-c", "updatectl rollback "+to+" 2> "+said)
		if _, err := s.host.AwaitBoot(t.Context(), before); err != nil {
			t.Fatal(err)
		}
		if v := s.settled(); v.Booted.Root != to || v.Phase != "good" {
			t.Fatalf("rolled back to %s, status is %+v", to, v)
		}
		text := strings.Join(strings.Fields(s.host.Must(t, "cat", said)), " ")
		if to == s.roots["1"] && !mentions(text, "today's policy does not accept "+to) || !mentions(text, kept) {
			t.Errorf("rollback to %s says:\n%s", to, text)
		}
		// The /etc of this root has nothing of it.
		s.host.Must(t, "test", "!", "-e", revocation)
		s.refused(exitNotTrusted, kept+s.roots["2"], "signed under today's policy", "verify", s.roots["1"])
		s.refused(exitNotTrusted, "release.pub signed it and is revoked", "", "check")
		s.refused(exitNotTrusted, kept+s.roots["2"], "", "apply", "--unattended")
		if text := s.updatectl(exitDone, "status").Stdout; !mentions(text, kept+s.roots["2"]) {
			t.Errorf("status does not say it:\n%s", text)
		}
	}

	t.Log("an image by the next key leads on, once the key is here; the revocation comes along")
	s.write("/etc/updatectl/keys/next.pub", next.Public)
	s.write(successor, "[[verify.key]]\nfile = \"/etc/updatectl/keys/next.pub\"\n")
	if err := next.Sign(t.Context(), s.registry, s.registry.Host+"/os/server@"+
		strings.Replace(s.roots["2"], "-", ":", 1)); err != nil {
		t.Fatal(err)
	}
	s.switches("apply", "--retry")
	s.runs(s.roots["2"], "2")
	s.refused(exitNotTrusted, kept+s.roots["2"], "", "verify", s.roots["1"])

	t.Log("a full reboot, back in a root that only the revoked key signed")
	s.switches("rollback", "host")
	s.settled()
	s.write("/etc/updatectl/conf.d/60-old.toml", "[verify]\nrevoked-roots = \"refuse\"\n")
	s.switches("rollback", s.roots["1"])
	s.write("/etc/updatectl/conf.d/60-old.toml", "[verify]\nrevoked-roots = \"refuse\"\n")
	s.runs(s.roots["1"], "1")
	if v := s.boots("systemctl", "reboot"); v.Booted.Root != "host" || v.Good[0].Root != s.roots["1"] {
		t.Errorf("after a full reboot status is %+v", v)
	}
	if log := s.host.Must(t, "journalctl", "--boot", "--no-pager", "--output=cat", "--unit=updatectl-resume"); !mentions(
		log, `revoked-roots = "refuse": today's policy does not accept `+s.roots["1"]) {
		t.Errorf("resume says:\n%s", log)
	}
	s.host.Must(t, "rm", "/var/lib/updatectl/roots/"+s.roots["1"]+"/etc/updatectl/conf.d/60-old.toml")
	s.boots("systemctl", "reboot")
	s.runs(s.roots["1"], "1")
}
