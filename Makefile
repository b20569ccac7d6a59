# `make demo` and `make check` set up all they need: a virtual environment with hash-locked packages, and once per
# machine a Kubernetes control plane (cached in the user's cache directory).
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
export PYTHONPATH := operator:tests
export KUBERNETES

.PHONY: help demo check test unit image-python fmt lint bench chaos explore mutants pages plugin record freeze lock clean
help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@echo "installing the hash-locked packages of requirements/dev.txt into .venv (about a minute)"
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## control plane, simulator, operator and 450 servers (ARGS=--keep leaves it up)
	@$(BIN)/python -m demo $(ARGS)

check: lint test image-python ## all that CI runs
	@$(MAKE) --no-print-directory bench QUICK=1
	@$(MAKE) --no-print-directory demo

test: $(READY) ## unit, property, contract and cluster tests (ARGS="-k name" for some of them; KUBERNETES=1.28.15)
	$(BIN)/pytest --numprocesses=3 --dist=loadfile $(ARGS)

unit: $(READY) ## what needs no control plane and no processes: for every change (ARGS="-k core")
	$(BIN)/pytest --numprocesses=auto --dist=loadfile --quiet tests/unit $(ARGS)

fmt: $(READY) ## format, and mend what the linter can mend by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

image-python: $(READY) ## unit and contract tests on the Python of the image, which Debian's packages bring once
	python="$$($(BIN)/python -m imagepython)"; "$$python" -m pytest --numprocesses=3 --dist=loadfile tests/unit tests/contract

lint: $(READY) ## linters, types, import rules, and counts of what was let through
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/yamllint --strict crds deploy .yamllint
	$(BIN)/zizmor --offline --quiet .github
	"$$($(BIN)/python -m controlplane program tests/controlplane/actionlint github.com/rhysd/actionlint/cmd/actionlint)"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/hadolint Dockerfile
	@for what in 'Any' 'type: ignore' 'noqa'; do \
	  printf '%-14s operator %3d, tests %3d\n' "$$what" \
	    "$$(grep -rowE --include=*.py "$$what" operator | wc -l)" "$$(grep -rowE --include=*.py "$$what" tests | wc -l)"; done

bench: $(READY) ## figures as counts and ratios (QUICK=1: counts only, small sizes)
	@$(BIN)/python -m bench $(if $(QUICK),--quick) $(ARGS)

chaos: $(READY) ## crashes at every boundary, model runs, 200 kills on a real control plane (SEED=, ARGS="--only kills")
	@$(BIN)/python -m controlplane build
	@$(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) $(ARGS)

explore: $(READY) ## every short history of a small world, for an hour (ARGS="--seconds 60", "--play < history")
	@$(BIN)/python -m explore $(ARGS)

mutants: $(READY) ## each safety rule taken out in turn, and the test that fails (ARGS="--only P8" for one)
	@$(BIN)/python -m mutants $(ARGS)

plugin: $(READY) ## kubectl npmem as one file for this platform: build/kubectl-npmem
	rm -rf build/plugin && mkdir -p build/plugin
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/plugin.txt --target build/plugin/site
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target build/plugin/site .
	$(BIN)/shiv --site-packages build/plugin/site --entry-point nodepool_membership.plugin.cli:main --output-file build/kubectl-npmem
	@build/kubectl-npmem --version

pages: $(READY) ## write the pages of docs/ and the JSON schema that are generated from the code
	$(BIN)/python -m error_codes_page > docs/error-codes.md
	@$(BIN)/python -m pages

record: $(READY) ## collect anew what the operator writes in cluster tests, for the tests of GitOps tools and of upgrades
	rm -rf build/states && mkdir -p build/states
	STATES=$(CURDIR)/build/states $(BIN)/pytest --numprocesses=2 --dist=loadfile tests/cluster
	@$(BIN)/python -m gitops build/states
	@$(BIN)/python -m pages

freeze: $(READY) ## keep the definition and the stored objects of this version, for the next one to read
	@$(BIN)/python -m upgrade

lock: $(READY) ## resolve requirements/*.in again, without download addresses
	$(PYTHON) -m venv .venv/lock && .venv/lock/bin/pip install --quiet uv
	@for part in run plugin build release dev go; do (cd requirements && ../.venv/lock/bin/uv pip compile --quiet --universal --upgrade \
	  --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command 'make lock' $$part.in -o $$part.txt); done

clean: ## remove what make made here (the control plane's cache stays)
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
