# make help says what there is. Needed: Go, git, bash and make; everything else is fetched and built on first use.

module := vault-plugin-secrets-jira
lint   := scripts/build-once.sh scripts/tools github.com/golangci/golangci-lint/v2/cmd/golangci-lint -ldflags '-s -w'

govulncheck := scripts/build-once.sh scripts/tools golang.org/x/vuln/cmd/govulncheck -ldflags '-s -w'

# Without the clients of every cloud that Prometheus can find its targets in.
promtool := scripts/build-once.sh scripts/monitoring github.com/prometheus/prometheus/cmd/promtool -tags remove_all_sd -ldflags '-s -w'

# The version is the newest in the changelog, with -dev while that is unreleased. Vault wants semver with a leading v.
VERSION := $(or $(VERSION),$(shell awk '/^.. \[[0-9]/ { gsub(/[][]/, "", $$2); print "v" $$2 (/unreleased/ ? "-dev" : ""); exit }' CHANGELOG.md 2>/dev/null),v0.1.0-dev)
semver  := ^v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$$
ifeq (,$(shell echo '$(VERSION)' | grep -E '$(semver)'))
$(error VERSION must be semver with a leading v, not "$(VERSION)")
endif

# Static, stripped, and the same bytes whoever builds them and wherever.
go_build := CGO_ENABLED=0 go build -trimpath -buildvcs=false
ldflags   = -s -w -buildid= -X $(1)=$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help build check reproducible lint vulncheck monitoring fmt test fuzz mutants soak bench docs dashboard picture demo dev clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/vault-plugin-secrets-jira and bin/jira-sim
	$(go_build) -ldflags '$(call ldflags,$(module)/backend.Version)' -o bin/$(module) ./cmd/$(module)
	$(go_build) -ldflags '$(call ldflags,main.version)' -o bin/jira-sim ./cmd/jira-sim

check: build reproducible lint vulncheck monitoring ## all that must hold before a push, but the tests
	go mod verify
	go mod tidy -diff
	@for script in scripts/*.sh .ci/run; do bash -n $$script || exit; done
	@if command -v shellcheck >/dev/null; then shellcheck scripts/*.sh .ci/run; fi

reproducible: build ## build again in another folder and compare
	@copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && \
	cp -R Makefile go.mod go.sum cmd backend "$$copy" && \
	$(MAKE) -s --no-print-directory -C "$$copy" build VERSION=$(VERSION) && \
	for program in $(module) jira-sim; do \
		cmp "bin/$$program" "$$copy/bin/$$program" || exit; \
	done && echo "Built again in another folder: the same bytes."

lint: ## lint and check the format, with the linter pinned in scripts/tools
	@lint=$$($(lint)) && set -x && "$$lint" config verify && "$$lint" run --allow-parallel-runners && "$$lint" fmt --diff

# The database is a module: all that a run needs is pinned, and comes through Go's module proxy.
vulncheck: ## look for known vulnerabilities that the code reaches and a newer module fixes, by the database pinned in scripts/vulndb
	@go mod download -C scripts/vulndb golang.org/x/vulndb && db=$$(go list -C scripts/vulndb -m -f '{{.Dir}}' golang.org/x/vulndb) && \
	govulncheck=$$($(govulncheck)) && scan=$$(mktemp) && trap 'rm -f "$$scan"' EXIT && \
	"$$govulncheck" -format json -db "file://$$db/data/osv" ./... >"$$scan" && go run ./scripts/vulncheck <"$$scan"

# Built as promtool was, so that what both are made of is compiled once. Each time, for the cache knows no files outside the module.
monitoring: export CGO_ENABLED = 0
monitoring: ## check docs/monitoring: the dashboard's queries, the alerts and their tests
	@promtool=$$($(promtool)) && set -x && \
	"$$promtool" check rules docs/monitoring/alerts.yml && \
	"$$promtool" test rules docs/monitoring/alerts_test.yml && \
	"$$promtool" check config --syntax-only docs/monitoring/prometheus.yml && \
	go vet -C scripts/monitoring -trimpath ./... && \
	go test -C scripts/monitoring -trimpath -count=1 ./...

fmt: ## format the code
	@lint=$$($(lint)) && "$$lint" fmt

test: build ## run all tests, the stories against a real Vault included; REQUIRE_VAULT=1 fails without one
	@PLUGIN_BIN=$(CURDIR)/bin/$(module) SIM_BIN=$(CURDIR)/bin/jira-sim scripts/test.sh

fuzz: ## make up input for every parser of what others say, for FUZZTIME (30s) each
	@targets=$$(go test -list '^Fuzz' ./backend/...) && \
	echo "$$targets" | awk '/^Fuzz/ { target[n++] = $$1 } /^ok/ { while (n) print $$2, target[--n] }' | while read -r package target; do \
		echo "$$package $$target" && \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(or $(FUZZTIME),30s) -fuzzminimizetime 1s "$$package" </dev/null || exit; \
	done

mutants: ## change the code of the ledger and the client in small ways, and list what no test notices; half an hour
	@scripts/mutants.sh backend/ledger backend/jira

soak: build ## crash Vault and the plugin hundreds of times, take Jira away, and measure; SOAKFLAGS="-rounds 50 -seed 7"
	@vault=$$(scripts/vault.sh) && VAULT_BIN=$$vault REQUIRE_VAULT=1 PLUGIN_BIN=$(CURDIR)/bin/$(module) SIM_BIN=$(CURDIR)/bin/jira-sim \
	go test -C cmd/$(module) -count=1 -v -parallel=2 -timeout=6h -run '^Test(Crashes|Failover|Memory|Outage|Restore|RotationCrashes|Standby)$$' \
		-soak -keep $(CURDIR)/bin $(SOAKFLAGS)

bench: ## print what a lease costs: calls, writes, time, allocations
	go test -count=1 -run '^TestFigures$$' ./backend -figures -v

docs: ## write docs/api.md from the engine's own descriptions
	api=$$(go run ./scripts/apidoc) && printf '%s\n' "$$api" > docs/api.md

dashboard: ## write docs/monitoring/dashboard.json from its description in scripts/monitoring
	json=$$(go run -C scripts/monitoring . dashboard) && printf '%s\n' "$$json" > docs/monitoring/dashboard.json

picture: ## draw the dashboard of what a test has scraped into SCRAPES, as docs/monitoring/dashboard.png
	go run -C scripts/monitoring . picture $(abspath $(or $(SCRAPES),$(error SCRAPES is missing, the folder with the scrapes))) $(CURDIR)/docs/monitoring/dashboard.png

demo: build ## mint, use and revoke a token against a simulated Jira (or yours: JIRA_URL, JIRA_USERNAME, JIRA_TOKEN)
	@scripts/demo.sh

dev: build ## the same set-up, kept running until Ctrl-C
	@scripts/demo.sh --stay

clean: ## remove bin/; the tools built stay in ~/.cache/vault-plugin-secrets-jira
	rm -rf bin
