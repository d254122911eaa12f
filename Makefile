# Every target does all its own set-up: a virtual environment in .venv from Python 3.11 or newer.
.DELETE_ON_ERROR:
.PHONY: demo test check replay mutation traces vm vm-cluster vm-all fixtures bench bench-vm cdefs reference clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_VM := $(VENV)/.ready-vm
# The control dialect that the demo speaks: configfs (mainline), event or members (2005).
ABI ?= configfs
# The kernel that is booted: 5.10, 6.1, 6.12 or 7.2.
KERNEL ?= 6.1

demo: $(READY)
	$(BIN)/python -m dlm demo --abi $(ABI)

test: $(READY)
	$(BIN)/python -m pytest tests

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python cdefs/build.py --check

# Every recorded trace on the emulator, kernel by kernel: the last line of each counts differences.
# Then what the traces cover of the kernel's interface.
replay: $(READY)
	@failed=0; \
	for kernel in fixtures/traces/*; do \
	    echo "== $${kernel##*/}"; \
	    $(BIN)/python -m dlm trace replay $$kernel/*.jsonl.gz || failed=1; \
	done; \
	$(BIN)/python -m tests.workloads.coverage || failed=1; \
	exit $$failed

# Break the lock manager's rules one by one: the recorded traces must notice each.
mutation: $(READY)
	$(BIN)/python -m tests.mutation.check

# Record the directed traces again, in a guest, and replay them: make traces KERNEL=6.1
traces: $(READY_VM)
	PATH="$(CURDIR)/$(BIN):$$PATH" tests/vm/run --kernel $(KERNEL) --keep fixtures/traces/$(KERNEL) \
	    --exec 'python -m tests.traces.record $$DLM_VM_RESULTS/keep'
	$(BIN)/python -m dlm trace replay fixtures/traces/$(KERNEL)/directed-*.jsonl.gz

# KERNEL=5.10, 6.1, 6.12 or 7.2; for vm-cluster also one for each node: KERNEL=6.1,6.12,7.2.
vm: $(READY_VM)
	$(BIN)/python tests/vm/run --kernel $(or $(KERNEL),6.1)

vm-cluster: $(READY_VM)
	$(BIN)/python tests/vm/run --kernel $(or $(KERNEL),6.1) --cluster

vm-all: $(READY_VM)
	$(BIN)/python tests/vm/run --all

# Record fixtures/sysfs/ anew on the real kernels, one after the other, or on one: KERNEL=7.2.
fixtures: $(READY_VM)
	set -e; for kernel in $(or $(KERNEL),5.10 6.1 6.12 7.2); do \
	    echo "recording the trees of $$kernel"; \
	    PATH="$(CURDIR)/$(BIN):$$PATH" tests/vm/run --kernel $$kernel --record; \
	done

bench: $(READY)
	set -e; for each in bench/*.py; do $(BIN)/python "$$each"; done

# What needs a kernel's DLM: the emulator and dlm.locks against C programs on libdlm, in a guest.
bench-vm: $(READY_VM)
	PATH="$(CURDIR)/$(BIN):$$PATH" tests/vm/run --kernel $(or $(KERNEL),6.1) \
	    --exec 'python bench/lock_loop.py && python bench/locks.py --require'

# Generate docs/locks/reference.md from the docstrings of dlm.locks.
reference: $(READY)
	$(BIN)/python docs/locks/make_reference.py

# Generate src/dlm/abi/_cdefs.py from the headers in cdefs/.
cdefs: $(READY)
	$(BIN)/python cdefs/build.py

$(BIN)/python:
	@set -eu; \
	for python in $${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found="$$python"; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then echo "Python 3.11 or newer is needed: install it, or say PYTHON=/path/to/python" >&2; exit 1; fi; \
	if ! "$$found" -c 'import ensurepip' 2>/dev/null; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; \
	    else \
	        echo "$$found cannot make virtual environments: install the package python3-venv, as root" >&2; exit 1; \
	    fi; \
	fi; \
	echo "making $(VENV) with $$found"; \
	"$$found" -m venv $(VENV)

$(READY): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

$(READY_VM): pyproject.toml $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,vm]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache src/*.egg-info
