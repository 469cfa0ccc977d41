# Names for the things one does here. The work is in cargo and in scripts.

.PHONY: run test test-sdk test-dashboard dashboard screenshots attack demo samples bench pipeline-figure chaos power-failures fuzz lint check-deploy

run: ## Start Tallyhouse with its embedded ClickHouse, on http://127.0.0.1:8080
	@scripts/build-dashboard --if-possible
	cargo run --profile local -- dev

dashboard: ## Build the dashboard, which the service serves at /
	scripts/build-dashboard

test: ## Run every test
	cargo test --workspace
	scripts/test-sdk
	scripts/test-dashboard
	scripts/test-quickstarts

test-sdk: ## Run the tests of the TypeScript SDK alone
	scripts/test-sdk

test-dashboard: ## Run the tests of the dashboard and of the quickstarts alone
	scripts/test-dashboard
	scripts/test-quickstarts

screenshots: ## Make the pictures in docs/screenshots
	scripts/build-dashboard
	cd dashboard && npm run screenshots

attack: ## Attack a running service as the threat model in docs/security.md describes
	scripts/attack

demo: ## Send a realistic sample to a running Tallyhouse, and show what it counted
	cargo run --profile local -- demo

samples: ## Load samples/ into a running Tallyhouse that has TALLYHOUSE_AUTH_HS256_SECRET, as here
	cargo run --profile local -- load samples

bench: ## Measure speed and memory against ClickHouse alone: make bench ARGS="--only single"
	cargo build --release --bin tallyhouse
	cargo run --release --package tallyhouse-bench -- --service target/release/tallyhouse $(ARGS)

pipeline-figure: ## Measure 50,000 events through the event pipeline, across a restart (needs redis-server)
	cargo test --release --test blackbox fifty_thousand -- --ignored --nocapture

fuzz: ## Feed every decoder with hostile input, SECONDS each (60)
	FUZZ_SECONDS=$(or $(SECONDS),60) scripts/fuzz

SEEDS ?= 200
FROM ?= 1

chaos: ## Live through many seeded fault scenarios: make chaos SEEDS=1000 FROM=1
	cargo test --release --test chaos -- --seeds $(SEEDS) --from $(FROM)

LIVES ?= 20000

power-failures: ## Simulate power failures below log, ledger and keys: make power-failures LIVES=100000
	LOG_SEEDS=$(LIVES) LEDGER_SEEDS=$(LIVES) KEYS_SEEDS=$(LIVES) cargo test --release --workspace --lib power_fails

lint: ## Formatting, lints, documentation, protocol, licences
	scripts/lint

check-deploy: ## Check the image, the compose file, the chart and the alerts
	scripts/check-deploy
