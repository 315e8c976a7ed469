# SPDX-License-Identifier: Apache-2.0
# bnngen's menu. Works on a fresh Debian 12 with python3.11, gcc, make and git: whatever else is needed is
# installed first (apt-get as root or by sudo; Python packages into .venv), and said so.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON := $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
WORKERS := $(shell nproc)

# What is looked for : the Debian package that has it.
BASE_NEEDS := /usr/include/stdio.h:libc6-dev arm-none-eabi-gcc:gcc-arm-none-eabi \
	aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu /usr/aarch64-linux-gnu/include/stdio.h:libc6-dev-arm64-cross \
	qemu-system-arm:qemu-system-arm qemu-aarch64:qemu-user
TEST_NEEDS := $(BASE_NEEDS) clang:clang g++:g++ gdb-multiarch:gdb-multiarch openocd:openocd \
	st-flash:stlink-tools ssh:openssh-client cmake:cmake

.PHONY: help demo test test-all test-slow lint install install-test clean distclean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 \2/p' $(MAKEFILE_LIST) | awk '{n=$$1" "$$2; $$1=$$2=""; printf "%-16s%s\n", n, $$0}'

demo: install  ## the main job on real images: train, export, build, compare, learn on the emulated board
	@start=$$SECONDS; $(RUN) -m bnngen.cli demo; echo "the demo took $$((SECONDS - start)) s, installation apart"

test: install-test  ## every test but the slow ones
	@$(RUN) -m pytest -n $(WORKERS) --dist loadfile

test-all: lint test test-slow demo  ## style, every test, the slow ones too, and the demo

test-slow: install-test  ## what takes minutes: all models of larq_zoo, several workers, hundreds of random networks
	@$(RUN) -m pytest -m slow

lint: install-test  ## ruff over everything
	@$(RUN) -m ruff check .

install: $(VENV)/stamp-tools $(VENV)/stamp-python  ## compilers, emulators and Python packages

install-test: $(VENV)/stamp-tools-test $(VENV)/stamp-python $(VENV)/stamp-peers  ## the same, and what only the tests need

# $(call install_missing,needs,why): install the packages whose program or file is not there.
define install_missing
	@start=$$SECONDS; missing=(); \
	for need in $(1); do \
	    thing=$${need%%:*}; \
	    if [[ $$thing == /* ]]; then [[ -e $$thing ]] && continue; \
	    else command -v "$$thing" >/dev/null && continue; fi; \
	    missing+=("$${need##*:}"); \
	done; \
	if (( $${#missing[@]} )); then \
	    command -v apt-get >/dev/null || { echo "install what Debian calls: $${missing[*]}" >&2; exit 1; }; \
	    echo "installing with apt-get ($(2)): $${missing[*]}"; \
	    apt=(env DEBIAN_FRONTEND=noninteractive apt-get); \
	    if (( EUID != 0 )); then \
	        command -v sudo >/dev/null || { echo "as root, run: apt-get install $${missing[*]}" >&2; exit 1; }; \
	        apt=(sudo "$${apt[@]}"); \
	    fi; \
	    "$${apt[@]}" update -qq; \
	    "$${apt[@]}" install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; \
	    echo "installed in $$((SECONDS - start)) s"; \
	fi
endef

# Debian's python3 comes without the part that makes virtual environments.
VENV_NEED := $(shell $(PYTHON) -c "import ensurepip" 2>/dev/null || echo /none:python3-venv)

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	    { echo "Python 3.11 is needed: TensorFlow 2.15, the last that Larq works with, has no newer one" >&2; exit 1; }
	$(call install_missing,$(VENV_NEED),for virtual environments)
	@$(PYTHON) -m venv $(VENV)

$(VENV)/stamp-tools: $(VENV)/pyvenv.cfg Makefile
	$(call install_missing,$(BASE_NEEDS),compilers for Raspberry Pi and STM32 and their emulators)
	@touch $@

$(VENV)/stamp-tools-test: $(VENV)/pyvenv.cfg Makefile
	$(call install_missing,$(TEST_NEEDS),compilers and emulators and flashing tools for the tests)
	@touch $@

$(VENV)/stamp-python: $(VENV)/pyvenv.cfg pyproject.toml
	@start=$$SECONDS; \
	echo "installing Python packages into $(VENV): TensorFlow and Larq to train, ONNX to export, pytest to test"; \
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[train,dev]'; \
	echo "installed in $$((SECONDS - start)) s"
	@touch $@

$(VENV)/stamp-peers: $(VENV)/stamp-python tests/peers.txt
	@start=$$SECONDS; \
	echo "installing what bnngen is compared with into $(VENV)/peers: larq-compute-engine, larq-zoo"; \
	rm -rf $(VENV)/peers; \
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/peers -r tests/peers.txt; \
	echo "installed in $$((SECONDS - start)) s"
	@touch $@

clean:  ## remove what builds and tests leave
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## remove the Python environment too
	rm -rf $(VENV)
