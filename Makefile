# Parhelia sandbox agent: everything a developer or a CI machine calls. `make help` lists it.
#
# The environment is .venv, made from the lock files; stamps in it make the second call quick. The Python is found by
# container/find-python.sh (PYTHON=… overrules it). pip follows this user's own configuration (index, certificates, proxy).

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
CLI := $(VENV)/bin/parhelia-agent
HOOK_SOURCES := $(wildcard agent/enforce/commands/native/*.[ch])
HOOK := agent/enforce/commands/native/parhelia-hook
DOCKER ?= docker
comma := ,
IMAGE ?= parhelia-agent:latest
PYTEST_ARGS ?=
PIP_INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

# CMD of `make run` is taken literally ($ and quotes reach the shell of the session) and travels in the environment.
override CMD := $(value CMD)
export CMD

.PHONY: help setup run test test-tools lint format bench image lock clean users

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 18

setup: $(VENV)/.stamp-project users $(HOOK)  ## .venv from the lock files, the CLI in it, the hook client, the accounts `parhelia` and `session`
	@container/reachable.sh $(VENV)/bin/python .

# An environment whose Python is gone (moved checkout, removed interpreter) or too old is made anew.
$(VENV)/.stamp-python: container/find-python.sh
	@if $(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then touch $@; else \
		python=$$(container/find-python.sh) && rm -rf $(VENV) && \
		echo "making $(VENV) with $$python" && "$$python" -m venv $(VENV) && touch $@; fi

$(VENV)/.stamp-deps: $(VENV)/.stamp-python requirements.lock requirements-dev.lock
	@echo "installing from requirements.lock and requirements-dev.lock"
	@$(PIP_INSTALL) --require-hashes -r requirements.lock -r requirements-dev.lock
	@touch $@

$(VENV)/.stamp-project: $(VENV)/.stamp-deps pyproject.toml
	@PYTHONWARNINGS=ignore $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# Without a compiler there is no file, and no error: the Python client stays.
$(HOOK): container/build-hook.sh $(HOOK_SOURCES)
	@container/build-hook.sh $@

users:
	@container/users.sh

run: $(VENV)/.stamp-project users  ## a confined session on the default policy: a shell, or CMD='…' by /bin/sh -c
	@set -- -- /bin/sh; if [ -n "$$CMD" ]; then set -- -- /bin/sh -c "$$CMD"; elif [ -x /bin/bash ]; then set -- -- /bin/bash; fi; \
	unset CMD; $(CLI) run --audit-dir ./var/audit "$$@" || { status=$$?; \
	echo "parhelia-agent run: exit status $$status" >&2; exit $$status; }

test-tools:
	@container/test-tools.sh

test: $(VENV)/.stamp-project users test-tools $(HOOK)  ## the suite (as root: on the host, in Docker and in gVisor), in two halves; PYTEST_ARGS='…': one pytest
	$(if $(strip $(PYTEST_ARGS)),$(VENV)/bin/python -m pytest $(PYTEST_ARGS),container/suite.sh $(VENV)/bin/python)

lint: $(VENV)/.stamp-project  ## ruff, its formatter, mypy, import-linter
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo

format: $(VENV)/.stamp-project  ## rewrite what ruff can
	$(VENV)/bin/ruff check --fix-only
	$(VENV)/bin/ruff format

bench: $(VENV)/.stamp-project  ## the benchmarks
	@for bench in benchmarks/[!_]*.py; do [ -f "$$bench" ] || { echo "no benchmarks yet"; break; }; \
	name=$$(basename "$$bench" .py); echo "== $$name"; $(VENV)/bin/python -m "benchmarks.$$name" || exit; done

# A private index or certificate authority reaches the build as secrets, which leave no trace in the image:
#   make image PIP_CONF=/etc/pip.conf CA=/etc/ssl/certs/ca-certificates.crt
image:  ## the container image (IMAGE=name:tag, CA=bundle, PIP_CONF=file)
	DOCKER_BUILDKIT=1 $(DOCKER) build --network=host $(if $(CA),--secret id=ca$(comma)src=$(CA)) \
		$(if $(PIP_CONF),--secret id=pip$(comma)src=$(PIP_CONF)) --tag $(IMAGE) .

lock: $(VENV)/.stamp-project  ## requirements*.lock from pyproject.toml (UPGRADE=1: newest versions)
	container/lock.sh $(VENV)/bin/python $(if $(UPGRADE),--upgrade)

clean:  ## everything that can be made again (the audit log in var/ stays)
	rm -rf $(VENV) $(HOOK) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find agent tests -name __pycache__ -type d -prune -exec rm -rf {} +
