# Two commands matter: `make demo` and `make test`. Each sets up all it needs.
SHELL := /bin/bash
PY := .venv/bin/python
UV_VERSION := 0.13.9
SOURCES := operator/lora_operator merge_job_image/lora_job client/loractl client/lora_client client/lora_integration_tools devcluster/devcluster demo bench

.PHONY: help setup demo demo-down test test-full test-gpu bench check check-suites train-example lock crds clean
help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## .venv with everything, pinned and hash-checked

.venv/.ready: requirements.lock pyproject.toml scripts/setup.sh merge_job_image/build_hook.py $(addprefix merge_job_image/lora_job/kernels/,rows.c sha256.c build.py)
	@UV_VERSION=$(UV_VERSION) scripts/setup.sh
	@touch $@

demo: setup ## from nothing to a served, validated model (CONTEXT=name uses your own cluster)
	@$(PY) -m demo up $(if $(CONTEXT),--context $(CONTEXT))

demo-down: setup ## remove what `make demo` made
	@$(PY) -m demo down $(if $(CONTEXT),--context $(CONTEXT))

test: setup check ## all levels, end to end on a devcluster too
	@$(PY) -m pytest tests --ignore=tests/gpu -m "not full"

test-full: setup check ## what takes longer as well
	@$(PY) -m pytest tests --ignore=tests/gpu

test-gpu: setup ## merging on a GPU; fails where CUDA finds none
	@$(PY) -m pytest tests/gpu

bench: setup ## how fast a merge is, against cp and PEFT (BENCH="--sizes 1,3,6 --peft 6" for more)
	@$(PY) -m bench.merge $(BENCH)

check: setup ## lint, types, imports, drift
	@.venv/bin/ruff check $(SOURCES) tests examples
	@.venv/bin/ruff format --check $(SOURCES) tests examples
	@.venv/bin/mypy $(SOURCES)
	@scripts/check-go.sh
	@$(PY) -m pytest -q tests/repo

check-suites: setup ## the shipped validation suites: schema, duplicates, balance, expiry
	@$(PY) -m pytest -q tests/examples/test_suites.py

train-example: setup ## trains the example adapter again
	@$(PY) examples/finance_lora/train.py

lock: ## new requirements.lock from pyproject.toml
	@.venv/bin/uv pip compile -q --all-extras --generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_36 \
	  --no-emit-index-url --custom-compile-command "make lock" --override scripts/overrides.txt pyproject.toml -o requirements.lock

crds: ## copies the CRDs into the chart
	@cp crds/*.yaml charts/lora-operator/files/crds/

clean: ## removes what builds left in the checkout
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
