# `make help` lists the targets. PYTHON chooses the interpreter, VENV where its packages go.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -q

.PHONY: help run test test-long test-prometheus check format lock openapi clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run ## start the gateway; without TASKGATE_CONFIG with an embedded Valkey and a sandbox upstream
	@exec $(BIN)/python -m service $(if $(TASKGATE_CONFIG),serve,demo)

test: $(VENV)/.dev check ## check, then run the whole suite against real servers (under five minutes)
	$(BIN)/python -m pytest -n 2 -m "not long and not prometheus"

test-long: $(VENV)/.dev ## the scenes that take minutes
	$(BIN)/python -m pytest -m long

bench-budget: $(VENV)/.dev ## what the budget costs: script times, ticks, added latency (two minutes)
	$(BIN)/python -m tests.bench.budget

test-prometheus: $(VENV)/.dev ## scrape with a real Prometheus (Debian: prometheus) and ask it the documented questions
	$(BIN)/python -m pytest -m prometheus

check: $(VENV)/.dev ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: $(VENV)/.run ## write openapi/openapi.json anew
	$(BIN)/python -m service openapi > openapi/openapi.json.new
	mv openapi/openapi.json.new openapi/openapi.json

lock: ## pin the dependencies anew, with hashes (needs uv on the PATH)
	for set in run dev; do \
	  extra=$$([ $$set = run ] && echo sandbox || echo dev); \
	  uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	    --no-annotate --upgrade --quiet --no-emit-package taskgate --extra $$extra pyproject.toml -o requirements/$$set.txt || exit 1; \
	done
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --no-annotate --upgrade --quiet pyproject.toml -o requirements/image.txt

clean: ## remove what the targets made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.run: requirements/run.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements/run.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/.run
	$(PIP) install --require-hashes -r requirements/dev.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
