# Stoa: `make demo` shows it, `make test` proves it. Every target does its own set-up.
# What is missing is installed from the system's packages: PostgreSQL's binaries, and for the tests node, Python and Chromium. Nothing else is needed but Rust.

CARGO ?= cargo
# Builds use the committed descriptions of the SQL statements (.sqlx); only `check` and `sqlx` ask a database.
export SQLX_OFFLINE = true

.PHONY: demo test crash-test check format sqlx openapi openapi-lint bench deny test-real-data test-defences build

demo: ## Builds Stoa and tells its story, then stays up: ARGS="--once" to exit, ARGS="--catalog FILE" for your own catalog.
	scripts/install-postgres
	@echo "Building Stoa; the first time takes some minutes."
	$(CARGO) build --profile demo -p gateway
	@$(CARGO) run --quiet --profile demo -p gateway -- demo $(ARGS)

test: ## Runs every test, on a PostgreSQL of its own, with node, Python and Chromium as clients.
	scripts/install-test-clients
	scripts/with-postgres $(CARGO) test --workspace --quiet

crash-test: ## Delivers 100,000 events while workers and PostgreSQL are killed twenty times; `test` has a tenth of it.
	scripts/install-postgres
	$(CARGO) test -p gateway --quiet --test end_to_end -- --ignored --nocapture crash_delivery

check: ## Format, lints, and the freshness of everything that is generated.
	$(CARGO) fmt --all --check
	scripts/with-postgres scripts/check-sqlx
	scripts/check-generated

format:
	$(CARGO) fmt --all

sqlx: ## Describes every SQL statement anew into .sqlx.
	scripts/with-postgres scripts/check-sqlx --write

openapi: ## Writes openapi/ and the GraphQL schema anew.
	scripts/check-generated --write

openapi-lint: ## Lints the OpenAPI document (needs npm).
	npx --yes @redocly/cli@2 lint openapi/stoa.json

bench: ## Measures ours against its ceilings, into target/bench.json.
	scripts/install-postgres
	$(CARGO) build --release -p gateway -p bench
	$(CARGO) run --release --quiet -p bench -- $(ARGS)

deny: ## Bans, licences and sources of the dependencies (needs cargo-deny).
	$(CARGO) deny check bans licenses sources

test-real-data: ## Tests on real catalogs; STOA_REAL_DATA names their folder.
	@test -n "$(STOA_REAL_DATA)" || { echo "STOA_REAL_DATA must name a folder with real catalogs" >&2; exit 1; }
	scripts/install-postgres
	$(CARGO) test -p gateway --quiet --test end_to_end -- --ignored real_data

test-defences: ## Removes each defence in tests/defences/ and expects its test to fail: ARGS="NAME ..." for some.
	scripts/with-postgres scripts/test-defences $(ARGS)

build:
	$(CARGO) build --release -p gateway
