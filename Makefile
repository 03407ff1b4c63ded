# Two commands do everything on a fresh Debian 12 machine, as root: `make demo` and `make test`.
SHELL := /bin/bash
PY := .venv/bin/python
TORTIE := .venv/bin/tortie

.PHONY: help demo test test-vm lint unit conformance scenarios soak benchmarks cni-front prepare prepare-dev clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

prepare: ## install what is missing: Debian packages and .venv
	@scripts/prepare

prepare-dev:
	@scripts/prepare dev

demo: prepare ## a three-node cluster in network namespaces, pods, a policy, real packets; leaves nothing behind
	@$(TORTIE) lab demo

test: prepare-dev lint ## every check and every test
	$(PY) -m pytest
	@$(MAKE) --no-print-directory test-vm

test-vm: prepare-dev ## what this kernel may lack (ipip, WireGuard), in a small virtual machine: minutes
	$(TORTIE) lab vm $(PY) -m pytest -p no:cacheprovider -v tests/vm

lint: prepare-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

unit: prepare-dev ## the tests that need neither root nor a bus: seconds
	$(PY) -m pytest tests/unit tests/graph tests/conformance -m "not root"

conformance: prepare-dev ## every case of other projects' suites, the truth tables by real packets too: minutes
	TORTIE_PACKETS=all $(PY) -m pytest tests/conformance

scenarios: prepare-dev ## the scenarios of ../shared/scenarios, and our own, with real packets
	$(TORTIE) lab run ../shared/scenarios tests/system/scenarios

DURATION ?= 600
soak: prepare-dev ## pods come and go on 20 nodes while replicas, agents and the bus fail, for DURATION seconds; then the books
	SOAK_S=$(DURATION) $(PY) -m pytest -s tests/system/test_ipam_soak.py

benchmarks: prepare-dev ## every figure of benchmarks/RESULTS.md again
	$(PY) benchmarks/all.py

cni-front: ## build/cni/tortie, the static CNI front end for hosts without Python
	scripts/build-cni-front build/cni/tortie

clean: ## remove the virtual environment and caches
	rm -rf build .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
