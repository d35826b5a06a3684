SHELL := /bin/bash
export PATH := $(PATH):/usr/local/go/bin

# Pinned, so that a new release of a checker does not fail an unchanged tree.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.1.4

CYCLONEDX := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
NFPM := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2

# Build tags of code that only some suites need.
TAGS := lab,vm,zoo,faults,endurance,power,fleet,manpages

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION)

bindir     := $(DESTDIR)/usr/bin
unitdir    := $(DESTDIR)/usr/lib/systemd/system
catalogdir := $(DESTDIR)/usr/lib/systemd/catalog
docdir     := $(DESTDIR)/usr/share/doc/updatectl

.PHONY: build install packages unit fuzz lint vuln sbom reproducible setup hosts test demo clean
.PHONY: test-simulation simulation-fleet test-vm test-zoo test-faults test-power test-endurance test-fleet costs outage

# Static: the agent has to run in every image that it is carried over to.
build:
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

install: build
	install -D -m 0755 -t $(bindir) bin/updatectl bin/releasectl
	install -D -m 0644 -t $(unitdir) configs/units/*
	install -D -m 0644 -t $(catalogdir) configs/catalog/*
	for dir in configs/dropins/*; do install -D -m 0644 -t $(unitdir)/$${dir##*/} $$dir/*; done
	install -d $(unitdir)/multi-user.target.wants $(unitdir)/sysinit.target.wants \
		$(unitdir)/emergency.target.wants
	ln -sf ../updatectl-arrived.service $(unitdir)/multi-user.target.wants/
	ln -sf ../updatectl-confirm.service $(unitdir)/multi-user.target.wants/
	ln -sf ../updatectl-derive.service $(unitdir)/sysinit.target.wants/
	ln -sf ../updatectl-kernel.timer $(unitdir)/emergency.target.wants/
	ln -sf ../updatectl-kernel.timer $(unitdir)/sysinit.target.wants/
	ln -sf ../updatectl-livepatch.service $(unitdir)/sysinit.target.wants/
	ln -sf ../updatectl-renew.service $(unitdir)/sysinit.target.wants/
	ln -sf ../updatectl-resume.service $(unitdir)/sysinit.target.wants/
	install -D -m 0644 -t $(docdir) README.md CONTRIBUTING.md LICENSE configs/updatectl.toml configs/stale.conf \
		configs/renew.conf configs/derived.toml configs/hostonly.conf
	install -D -m 0644 -t $(docdir)/docs docs/*.md docs/*.svg
	install -D -m 0755 -t $(docdir)/configs/examples/hooks configs/examples/hooks/*
	install -D -m 0644 -t $(docdir)/configs/examples/prometheus configs/examples/prometheus/*
	install -D -m 0755 -t $(docdir)/configs/examples configs/examples/rollout
	cd configs/examples && for file in $$(find ansible -type f); do \
		install -D -m 0644 $$file $(abspath $(docdir))/configs/examples/$$file || exit; done
	install -D -m 0644 -t $(docdir)/docs/schemas docs/schemas/*.md docs/schemas/*.json

# A .deb and an .rpm in bin/, of what install installs, with manual pages and completions. The same commit makes the
# same bytes. A tag v1.2-rc1 is the version 1.2~rc1, and three commits after v1.2 is 1.2+3.g<commit>.
PACKAGE_MAINTAINER := updatectl <updatectl@localhost>
PACKAGE_VERSION = $(shell sed -E 's/^v([0-9])/\1/; t tag; s/^/0+g/; :tag; s/-(rc|beta|alpha)/~\1/; s/-/+/; s/-/./g' \
	<<<'$(VERSION)')
packages: export TZ := UTC
packages: export SOURCE_DATE_EPOCH := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null))
packages: build
	@test -n "$$SOURCE_DATE_EPOCH" || { echo 'outside of git, SOURCE_DATE_EPOCH must be set' >&2; exit 1; }
	rm -rf bin/packages && umask 022 && $(MAKE) --no-print-directory install DESTDIR=bin/packages VERSION='$(VERSION)'
	set -e; umask 022; cd bin/packages/usr/share; mkdir -p man/man1 man/man8 bash-completion/completions \
		zsh/site-functions zsh/vendor-completions fish/vendor_completions.d; \
	(cd $(CURDIR) && go run -tags manpages ./cmd/updatectl $(CURDIR)/bin/packages/usr/share/man/man8 && \
		go run -tags manpages ./cmd/releasectl $(CURDIR)/bin/packages/usr/share/man/man1); \
	gzip -9n man/*/*; \
	for name in updatectl releasectl; do \
		$(CURDIR)/bin/$$name completion bash >bash-completion/completions/$$name; \
		$(CURDIR)/bin/$$name completion zsh | tee zsh/site-functions/_$$name >zsh/vendor-completions/_$$name; \
		$(CURDIR)/bin/$$name completion fish >fish/vendor_completions.d/$$name.fish; done
	find bin/packages -exec touch -h -d @$$SOURCE_DATE_EPOCH {} +
	for format in deb rpm; do PACKAGE_TREE=bin/packages PACKAGE_ARCH=$$(go env GOARCH) \
		PACKAGE_VERSION='$(PACKAGE_VERSION)' PACKAGE_MAINTAINER='$(PACKAGE_MAINTAINER)' \
		go run $(NFPM) package -f configs/packaging/nfpm.yaml -p $$format -t bin/ || exit; done

# Everything that needs no host: what a person runs between two edits. The seeds of fuzz tests run as tests.
#
# The simulated host runs without the race detector, which would make it take ten times as long, and with it a sample.
unit: lint
	CGO_ENABLED=1 go test -race -count=1 -timeout 10m $$(go list ./... | grep -v '/agent/simulation$$')
	CGO_ENABLED=1 go test -race -count=1 -timeout 10m ./agent/simulation -run TestHistories -args -histories 100
	go test -count=1 -timeout 15m ./agent/simulation

lint:
	@set -o pipefail; files=$$(git ls-files '*.go' | xargs -r gofmt -l) && if [ -n "$$files" ]; then \
		echo "not gofmt'ed: $$files" >&2; exit 1; fi
	go vet -tags $(TAGS) ./...
	go run $(STATICCHECK) -tags $(TAGS) ./...

vuln:
	@out=$$(go run $(GOVULNCHECK) -tags $(TAGS) ./... 2>&1); code=$$?; echo "$$out"; \
	if [ $$code -ne 0 ] && grep -q 'fetching vulnerabilities: .*dial' <<<"$$out"; then \
		echo 'govulncheck: cannot reach its database, so nothing was checked'; else exit $$code; fi

# What is in the binaries, from their own build information.
sbom: build
	for name in updatectl releasectl; do \
		go run $(CYCLONEDX) bin -json -version '$(VERSION)' -output bin/$$name.cdx.json bin/$$name; done

# Two builds of what is committed, in two directories and with two empty caches, are the same bytes.
reproducible:
	@set -e; dir=$$(mktemp -d); trap 'chmod -R u+w "$$dir"; rm -rf "$$dir"' EXIT; \
	for copy in one two-with-a-longer-name; do \
		mkdir $$dir/$$copy; git archive HEAD | tar -x -C $$dir/$$copy; \
		GOCACHE=$$dir/cache-$$copy $(MAKE) -C $$dir/$$copy --no-print-directory build VERSION='$(VERSION)'; \
		(cd $$dir/$$copy/bin && sha256sum updatectl releasectl | tee $$dir/$$copy.sums); done; \
	cmp $$dir/one.sums $$dir/two-with-a-longer-name.sums && echo "both builds are the same bytes"

# Every parser of untrusted bytes, for a while each. Interesting inputs stay in Go's cache for the next run; a failing one
# is written to testdata/fuzz and becomes a test.
FUZZTIME := 60s
fuzz:
	@set -e; packages=$$(go list ./...); for package in $$packages; do \
		listed=$$(go test -list '^Fuzz' $$package) || { echo "$$listed" >&2; exit 1; }; \
		for target in $$(grep '^Fuzz' <<<"$$listed"); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x $$package; \
		done; \
	done

# Installs the packages that tests need; builds Debian roots and tools into the lab's cache, once. It prints what it builds
# and how long that took.
setup:
	go run ./integration/lab/cmd/labhost prepare

# Real hosts, driven by the built binaries: containers, and the core of what needs a kernel of its own. Up to two
# containers and one machine run side by side (turns in integration/main_test.go); -parallel only has to be larger.
hosts: build
	go test -tags lab -count=1 -timeout 85m -p 1 -parallel 64 ./integration/...

# The rest of what needs a kernel of its own, in emulated machines: long. And the .deb on a fresh host.
test-vm: build
	go test -tags lab,vm -count=1 -timeout 3h -p 1 -run '^TestVM|^TestPackage$$' ./integration/...

# What fs-verity costs, as ratios.
costs: build
	go test -tags lab,vm -count=1 -timeout 2h -v -run '^TestVMVerityCosts$$' ./integration/

# How long services are away at a switch, against a bare soft reboot in the same run.
outage: build
	go test -tags lab,endurance -count=1 -timeout 1h -v -run '^TestOutage(Costs|FromHost)$$' ./integration/

# Every bad image that a host has to come back from; a few of them are in hosts.
test-zoo: build
	go test -tags lab,zoo -count=1 -timeout 2h -p 1 -v -run 'Zoo$$' ./integration/

# Every step that touches the disk or the mounts, with every error and with a crash; failures of the machine around the
# agent.
test-faults: build
	go test -tags lab,faults -count=1 -timeout 3h -run 'TestEveryFault|TestFaultsOfTheMachine' ./integration/

# A power cut at every step of the record and the history.
test-power: build
	go test -tags lab,power -count=1 -timeout 5h -v -run 'PowerCuts$$' ./integration/

# Fleets of five hosts: the scripts that bring one from release to release.
test-fleet: build
	go test -tags lab,fleet -count=1 -timeout 2h -v -run '^TestFleet(Scripts|OfFive)$$' ./integration/

# More than a hundred switches of one host between three images, a journey over three releases of Debian, a host with
# containers, hosts whose disks come late or never, a container of podman as a host, and copies of the state.
test-endurance: build
	go test -tags lab,endurance -count=1 -timeout 90m -v \
		-run 'TestEndurance|TestHoldTwenty|TestDistributions|TestEngines|TestLateState|TestStateNeverComes|TestVolatileLeft|TestPodmanHost' \
		./integration/

test: setup unit vuln hosts

# A million random histories of simulated machines, and every journey interrupted at every step; the first seed is printed.
SEED = $(shell date +%s)
test-simulation:
	go test -count=1 -timeout 12h ./agent/simulation -args -every -histories 1000000 -first $(SEED)0000000

# A hundred thousand hosts take one release; prints what that asks of the servers, and draws it in docs/scale.svg.
simulation-fleet:
	go test -count=1 -timeout 10m -v -run 'TestFleet$$' ./agent/simulation/fleet -args -hosts 100000 \
		-svg $(CURDIR)/docs/scale.svg

demo: build
	go run ./integration/demo

clean:
	rm -rf bin
