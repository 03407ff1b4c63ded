# Two commands do everything on a fresh Debian 12 machine, as root: `make demo` and `make test`.
SHELL := /bin/bash
PY := .venv/bin/python
TORTIE := .venv/bin/tortie

# Of the image: its base, what compiles for it, which Python the base has, its name, further options of `docker build`.
BASE ?= python:3.11-slim
BUILDER ?= $(BASE)
BASE_PYTHON ?= 3.11
TORTIE_IMAGE ?= tortie
DOCKER_BUILD ?=

.PHONY: docs help demo image image-base compose-test test test-vm lint unit conformance scenarios soak benchmarks
.PHONY: cni-front prepare prepare-dev pure clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

prepare: ## install what is missing: Debian packages and .venv
	@scripts/prepare

prepare-dev:
	@scripts/prepare dev

demo: prepare ## a three-node cluster in network namespaces, pods, a policy, real packets; leaves nothing behind
	@$(TORTIE) lab demo

image: ## the image of the containers, from BASE: see docs/compose.md
	@scripts/wheelhouse compose/wheels $(BASE_PYTHON)
	docker build --file compose/Dockerfile --tag $(TORTIE_IMAGE) \
		--build-arg BASE=$(BASE) --build-arg BUILDER=$(BUILDER) $(DOCKER_BUILD) .

image-base: ## tortie-base and tortie-builder by debootstrap, for BASE and BUILDER where no registry can be reached
	scripts/base-image make build/base
	scripts/base-image import build/base
	rm -rf build/base

compose-test: ## the containers of compose/ with a Docker of their own, as a user starts them: minutes
	@TORTIE_PREPARE_COMPOSE=1 scripts/prepare dev
	TORTIE_COMPOSE=1 $(PY) -m pytest tests/compose

PURE := tests/unit tests/graph

test: prepare-dev lint ## every check and every test: the virtual machine and what needs no kernel side by side, then the rest
	@echo "the virtual machine, and beside it what needs no kernel: some minutes without a word"
	@failed=0; \
	$(MAKE) --no-print-directory -j 2 --output-sync=target test-vm pure || failed=1; \
	$(PY) -m pytest $(addprefix --ignore=,$(PURE)) || failed=1; \
	exit $$failed

pure: prepare-dev
	$(PY) -m pytest $(PURE)

test-vm: prepare-dev ## what this kernel may lack (ipip, WireGuard), in a small virtual machine: minutes
	$(TORTIE) lab vm $(PY) -m pytest -p no:cacheprovider -v tests/vm

lint: prepare-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

docs: prepare ## docs/events.md, docs/asyncapi.yaml and k8s/crds out of bus_schemas
	$(TORTIE) schema events >docs/events.md
	$(TORTIE) schema asyncapi >docs/asyncapi.yaml
	$(TORTIE) schema crds --write k8s/crds

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
