# make demo   the main job on real input: Redis, a load generator and streamlag; Ctrl-C stops all of it
# make test   unit tests, and the program against real servers
# make check  what needs no server: formatting, lints, licences, alert rules, deployment files; .ci/run runs it, the tests and more
# They install what is missing (Debian packages, as root or through sudo) or say exactly what to install.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Fixed, so that a new release of the checker cannot fail an old commit.
CARGO_DENY := 0.20.2
CARGO_FUZZ := 0.13.2

# How long each fuzzer runs.
export FUZZ_SECONDS ?= 600

.PHONY: help demo test tools format lint doc elsewhere deny advisories audit alerts dashboards pictures deploy crate crate-build check soak history-kills history-figures incident-kills fault-runs bad-days fuzz image packages package-test first-lag cross release clean bench bench-guest bench-profile bench-core bench-scaling bench-history bench-tools callgrind

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

demo: ## run Redis, a load generator and streamlag, and print what to try
	@scripts/demo

# Tests that flood the program, or that expect no alert of a slow one: another test beside them would be slow or make it slow, and a
# scrape that is too slow is cut off.
BY_THEMSELVES := http_abuse:: live_abuse:: reader_memory:: logins:: redis_load:: prometheus::dashboards_alerts
# On two cores too: tests wait for servers more than they work.
TEST_THREADS := $(shell n=$$(nproc); echo $$((n > 4 ? n : 4)))

# From nothing, it builds a tenth faster so; what is built anew later is one crate.
test: export CARGO_INCREMENTAL ?= 0
test: tools ## unit tests, and the program against real servers
	cargo test --locked -- --test-threads=$(TEST_THREADS) $(addprefix --skip ,$(BY_THEMSELVES))
	cargo test --locked --test it -- --test-threads=1 $(BY_THEMSELVES)
	@# The reference parser of OpenMetrics on the page that the tests saw.
	scripts/check-openmetrics "$${CARGO_TARGET_DIR:-target}/tmp/openmetrics.txt"
	@# The reference implementation of JSON Schema on the answers that they saw.
	scripts/check-openapi "$${CARGO_TARGET_DIR:-target}/tmp/openapi-answers.json"
	@echo "make test: all passed"

check: format lint doc deny alerts dashboards deploy crate ## format, lint, doc, deny, alerts, dashboards, deploy and crate, in this order
	@echo "make check: all passed"

tools:
	@scripts/install cc:build-essential redis-server:redis-server prometheus:prometheus promtool:prometheus \
		chromium:chromium openssl:openssl gzip:gzip curl:curl systemd-socket-activate:systemd faketime:faketime prlimit:util-linux sqlite3:sqlite3 \
		groff:groff-base script:bsdutils zsh:zsh fish:fish \
		prometheus-alertmanager:prometheus-alertmanager amtool:prometheus-alertmanager aiosmtpd:python3-aiosmtpd
	@scripts/axe

format: ## rustfmt
	cargo fmt --check

lint: tools ## clippy, warnings denied
	cargo clippy --locked --all-targets --all-features -- -D warnings

doc: tools ## rustdoc, warnings denied
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet

elsewhere: ## compiles for Windows and macOS, unit tests included (cargo check; nothing is linked)
	scripts/check-elsewhere

deny: tools ## licences, sources and bans of dependencies
	@# Optimized, it would take minutes more to build than it ever runs.
	@cargo deny --version 2>/dev/null | grep -qx 'cargo-deny $(CARGO_DENY)' \
		|| CARGO_PROFILE_DEV_DEBUG=0 cargo install cargo-deny --locked --debug --version $(CARGO_DENY)
	cargo deny --locked check bans licenses sources

advisories: deny ## known vulnerabilities of dependencies; fetches the advisory database from GitHub
	cargo deny --locked check advisories

audit: advisories ## the same under the name that cargo audit gave it: both read the RustSec database

alerts: tools ## alert rules: syntax, and a firing and a quiet case each; Alertmanager's configurations
	alerts/generate --check
	promtool check rules --lint=all --lint-fatal alerts/*.rules.yml
	promtool test rules alerts/tests/*.yml
	amtool check-config deploy/alertmanager/alertmanager.yml deploy/compose/alertmanager.yml

dashboards: ## dashboards against Grafana's published types
	@scripts/install node:nodejs npm:npm
	cd dashboards/check && npm ci --silent --no-audit --no-fund && npm run --silent check && npm run --silent selftest

pictures: tools ## draw the dashboards for docs/images, over a real Prometheus; three minutes
	cargo build --locked --bin streamlag
	dashboards/render

deploy: ## Dockerfile, systemd unit, compose file and Helm chart, each by the tool that reads it
	deploy/check

crate: ## what crates.io would be given: the files of the package, and cargo publish --dry-run
	scripts/check-crate

crate-build: ## the same, and cargo install of the package alone, without this repository (minutes)
	scripts/check-crate --build

soak: tools ## faults, churn and abuse for an hour, or for SOAK_SECONDS: memory (below 1 MB/h), descriptors, threads and tasks stay flat
	SOAK_SECONDS=$${SOAK_SECONDS:-3600} cargo test --locked --test it soak:: -- --ignored --nocapture

history-kills: tools ## kill the writer of the history file a thousand times, or HISTORY_KILLS times
	HISTORY_KILLS=$${HISTORY_KILLS:-1000} cargo test --locked --test it history_crash:: -- --nocapture

history-figures: ## what the history file costs: bytes of a group, CPU and bytes of a day of 10,000 groups, a query over 14 days
	@scripts/install cc:build-essential
	cargo bench --locked --bench history

incident-kills: tools ## kill streamlag two hundred times, or INCIDENT_KILLS times, while it tells of incidents
	INCIDENT_KILLS=$${INCIDENT_KILLS:-200} cargo test --locked --test it notify_restart:: -- --nocapture

fault-runs: tools ## notifications under faults, a thousand simulated runs of hours, or FAULT_RUNS of them
	FAULT_RUNS=$${FAULT_RUNS:-1000} cargo test --locked --lib notify::fault_script -- --nocapture

bad-days: tools ## BAD_DAYS (10000) on which consumers, masters and streamlags are killed while acts are under way: nothing is lost. One again: BAD_DAYS_SEED
	BAD_DAYS=$${BAD_DAYS:-$${BAD_DAYS_SEED:+1}}; BAD_DAYS=$${BAD_DAYS:-10000} \
		cargo test --locked --profile bad-days --test it bad_days:: -- --nocapture

fuzz: tools ## every fuzzer for FUZZ_SECONDS (600); uses a nightly compiler where there is one
	@cargo fuzz --version 2>/dev/null | grep -qx 'cargo-fuzz $(CARGO_FUZZ)' \
		|| cargo install cargo-fuzz --locked --version $(CARGO_FUZZ)
	scripts/fuzz

bench-tools:
	@scripts/install cc:build-essential redis-server:redis-server wrk:wrk python3:python3 taskset:util-linux \
		prometheus-redis-exporter:prometheus-redis-exporter perf:linux-perf
	cargo build --release --locked --bin streamlag
	@# By itself: together with an example, the program would be built with the features that only tests ask for.
	cargo build --release --locked --example static_http

bench: bench-tools ## compares with redis_exporter, writes target/bench and docs/performance.md; an hour (BENCH_QUICK=1: minutes)
	python3 -B benches/side_by_side/run.py
	python3 -B benches/side_by_side/guest.py
	python3 -B benches/side_by_side/profile.py

bench-guest: bench-tools ## the second part of it: what other clients of Redis feel
	python3 -B benches/side_by_side/guest.py

bench-profile: bench-tools ## the third: where its time goes
	python3 -B benches/side_by_side/profile.py

bench-core: ## the core paths alone: decode, resolve, encode
	@scripts/install cc:build-essential
	cargo bench --locked --bench core

bench-scaling: ## KEDA and the horizontal pod autoscaler, simulated: the tables of docs/scaling.md
	cargo bench --locked --profile dev --bench scaling

bench-history: ## CPU of polls with a history file and without, in turns, and that of history itself: SECONDS_OF_RUN (90), ROUNDS (3)
	@scripts/install cc:build-essential redis-server:redis-server python3:python3
	cargo build --release --locked --bin streamlag
	python3 -B benches/history.py

callgrind: ## instructions that the core paths take, against benches/callgrind.expected; BLESS=1 writes them anew
	@scripts/install cc:build-essential valgrind:valgrind
	benches/callgrind

release: tools ## the program, a tarball, the list of what is in it (SBOM) and their sums, in target/dist
	scripts/release

packages: release ## the deb and the rpm of that program, in target/packages
	deploy/packages/build

package-test: packages ## lintian, rpmlint; install, upgrade, remove and purge them, and run the service under systemd (as root; minutes)
	deploy/package-test

first-lag: packages ## time to install each of them, and from there to the first right lag (as root; cargo takes minutes)
	deploy/first-lag $(WAYS)

# The program for arm64, its tarball and its packages, from amd64.
CROSS := aarch64-unknown-linux-gnu
cross: ## the same for arm64: the tarball in target/dist-aarch64-..., the packages; run under qemu-user (minutes)
	@scripts/install cc:build-essential gzip:gzip
	scripts/release $(CROSS)
	scripts/cross-test $(CROSS)
	deploy/packages/build --arch arm64 --program "$${CARGO_TARGET_DIR:-target}/dist-$(CROSS)/streamlag"

image: ## build the container image and run it (as root; ten minutes)
	deploy/image-test

clean: ## remove everything that was built
	cargo clean
	rm -rf dashboards/check/node_modules
