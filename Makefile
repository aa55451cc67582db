# `make demo` and `make test` work on a fresh clone with nothing but Python 3.11 or later and make.
# Each makes its own virtual environment under .venv/, one for each version of Python.
#
#   PYTHON=python3.12   the interpreter; else the first of python3.13, 3.12, 3.11 and python3 that works
#   ARCHIVE=image.tar   the archive that `make demo` and `make bench` put; the demo else builds one itself
#   BENCH_FLAGS=        where `make bench` writes and how often, such as "--on /mnt --fresh-fs 8G --rounds 9"; its
#                       results become JSON in .venv/bench/
#   FUZZ_SECONDS=20     how long `make fuzz` looks for bad inputs to each target; FUZZ_TARGETS names the targets, and
#                       FUZZ_FLAGS holds more of libFuzzer's options
#   ROUNDS=500          how often `make crash` kills a program that uses a store, `make test` 5 times; as much more of all
#                       that is random
#   PYKKA_SOURCE=DIR    a checkout of Pykka's sources, whose tests `make pykka-suite` runs on our runtime too
#   SWAP_SECONDS=60     how long `make crash` has another user swap what root unpacks, removes, puts and repairs, each

PRINT_VERSION := import sys; sys.version_info >= (3, 11) or sys.exit(1); print("%d.%d" % sys.version_info[:2])
ifndef PYTHON
PYTHON := $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c '$(PRINT_VERSION)' >/dev/null 2>&1 && echo $$python && break; done)
endif
VERSION := $(if $(PYTHON),$(shell $(PYTHON) -c '$(PRINT_VERSION)' 2>/dev/null))
DEMO := .venv/demo-$(VERSION)
TEST := .venv/test-$(VERSION)
# The directories too: their times tell of files that are gone.
SOURCES := setup.cfg pyproject.toml $(shell find actors \( -name __pycache__ -o -name '*.egg-info' \) -prune -o -print)
DOCS := .venv/docs-$(VERSION)
PAGES := $(shell find docs -name __pycache__ -prune -o -type f -print)
PROTOS := $(wildcard proto/*.proto)
BENCH := .venv/bench
FUZZ_SECONDS ?= 20
FUZZ_TARGETS ?= tar_reader extractor archive_index
ROUNDS ?= 500
SWAP_SECONDS ?= 60

# What is tested is what is installed: a PYTHONPATH of the caller's would put a source tree before it.
unexport PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Installations share the directory build/.
.NOTPARALLEL:

.PHONY: demo test lint types proto proto-check man docs pytest coverage crash pykka-suite fuzz fuzz-tools bench clean

demo: $(DEMO)/installed
	$(DEMO)/bin/python examples/quickstart.py $(ARCHIVE)

test: lint types proto-check docs pytest

lint: $(TEST)/installed
	$(TEST)/bin/ruff check --quiet
	$(TEST)/bin/ruff format --check --quiet

# Two files are named conftest, and a run of mypy takes one module of a name.
types: $(TEST)/installed
	$(TEST)/bin/mypy
	$(TEST)/bin/mypy --config-file tests/mypy.ini
	$(TEST)/bin/mypy --config-file tests/mypy.ini tests/crash/conftest.py

pytest: $(TEST)/installed
	$(TEST)/bin/pytest --numprocesses=auto --quiet $(PYTEST_FLAGS)

coverage: PYTEST_FLAGS += --cov --cov-report=term-missing:skip-covered
coverage: pytest

crash: $(TEST)/installed
	IMAGESTORE_CRASH_ROUNDS=$(ROUNDS) IMAGESTORE_SWAP_SECONDS=$(SWAP_SECONDS) IMAGESTORE_COMBINATIONS=all \
		$(TEST)/bin/pytest --numprocesses=auto --quiet -o faulthandler_timeout=0 tests/crash $(PYTEST_FLAGS)

# In the checkout, whose tests import one another as `tests`; nothing is written there.
pykka-suite: $(TEST)/installed
	@[ -f "$(PYKKA_SOURCE)/tests/test_future.py" ] || \
		{ echo "name a checkout of Pykka's sources: make pykka-suite PYKKA_SOURCE=DIR" >&2; exit 1; }
	cd "$(PYKKA_SOURCE)" && PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$(CURDIR)/tests/pykka_suite:." \
		$(abspath $(TEST))/bin/pytest --quiet -p plugin -p no:cacheprovider $(PYTEST_FLAGS) tests

# The files' names in the pool of descriptors, which all libraries share, begin with our package's name.
PROTOC = $(TEST)/bin/python -m grpc_tools.protoc --proto_path=pykka_imagestore/_proto=proto \
	$(PROTOS:proto/%=pykka_imagestore/_proto/%)

proto: $(TEST)/installed
	$(PROTOC) --python_out=actors --pyi_out=actors

proto-check: $(TEST)/installed
	rm -rf $(TEST)/proto && mkdir $(TEST)/proto
	$(PROTOC) --python_out=$(TEST)/proto --pyi_out=$(TEST)/proto
	diff -r -x __init__.py -x __pycache__ $(TEST)/proto/pykka_imagestore/_proto actors/pykka_imagestore/_proto \
		|| { echo "_proto/ is not what proto/ generates: run 'make proto'" >&2; exit 1; }

man: $(TEST)/installed
	$(TEST)/bin/python docs/_ext/man_page.py > docs/imagestore.1.new && mv docs/imagestore.1.new docs/imagestore.1

docs: .venv/docs/built
	@echo "the pages are in $(<D)/index.html"

fuzz: fuzz-tools
	@for target in $(FUZZ_TARGETS); do \
		echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
		$(TEST)/bin/python tests/fuzz/run.py $$target -max_total_time=$(FUZZ_SECONDS) -verbosity=0 $(FUZZ_FLAGS) || exit 1; \
	done

fuzz-tools: $(TEST)/fuzz-tools

bench: $(DEMO)/installed
	@mkdir -p $(BENCH)
	$(DEMO)/bin/python benchmarks/runtime.py --json $(BENCH)/runtime.json
	$(DEMO)/bin/python benchmarks/pool.py --json $(BENCH)/pool.json
	$(DEMO)/bin/python benchmarks/put.py $(ARCHIVE) $(BENCH_FLAGS) --json $(BENCH)/put.json
	if [ "$$(id -u)" = 0 ]; then $(DEMO)/bin/python benchmarks/rootfs.py $(firstword $(ARCHIVE)) $(BENCH_FLAGS) \
		--json $(BENCH)/rootfs.json; fi
	$(DEMO)/bin/python benchmarks/latency.py $(firstword $(ARCHIVE)) $(BENCH_FLAGS) --json $(BENCH)/latency.json
	$(DEMO)/bin/python benchmarks/references.py $(BENCH_FLAGS) --json $(BENCH)/references.json
	$(DEMO)/bin/python benchmarks/rootfs_copy.py $(BENCH_FLAGS) --json $(BENCH)/rootfs_copy.json
	$(DEMO)/bin/python benchmarks/sharing.py $(firstword $(ARCHIVE)) $(BENCH_FLAGS) --json $(BENCH)/sharing.json
	$(DEMO)/bin/python benchmarks/budget.py $(BENCH_FLAGS) --json $(BENCH)/budget.json
	$(DEMO)/bin/python benchmarks/hostile.py $(BENCH_FLAGS) --json $(BENCH)/hostile.json
	$(DEMO)/bin/python benchmarks/durability.py $(firstword $(ARCHIVE)) $(BENCH_FLAGS) --json $(BENCH)/durability.json
	$(DEMO)/bin/python benchmarks/stages.py $(firstword $(ARCHIVE)) $(BENCH_FLAGS) --json $(BENCH)/stages.json
	$(DEMO)/bin/python benchmarks/layers.py $(BENCH_FLAGS) --json $(BENCH)/layers.json
	if command -v strace >/dev/null; then $(DEMO)/bin/python benchmarks/syscalls.py --json $(BENCH)/syscalls.json; fi
	$(DEMO)/bin/python benchmarks/chart.py $(BENCH)/put.json $(BENCH)/put.svg
	if [ -e $(BENCH)/rootfs.json ]; then $(DEMO)/bin/python benchmarks/chart.py $(BENCH)/rootfs.json $(BENCH)/rootfs.svg \
		--group "1 at a time" --until 99; fi

clean:
	rm -rf .venv .fuzz build .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} + -o -name '*.egg-info' -prune -exec rm -rf {} +

$(TEST)/installed: EXTRAS := [test,dev]
$(DOCS)/installed: EXTRAS := [docs]
$(DEMO)/installed $(TEST)/installed $(DOCS)/installed: %/installed: %/made $(SOURCES)
	@echo "installing into $(@D)"
	@rm -rf build actors/*.egg-info # or files that an older build left there would be installed
	@$(@D)/bin/python -m pip install -qq '.$(EXTRAS)'
	@touch $@

# A link that leads nowhere, a page that none leads to, and whatever else Sphinx warns of is an error. Once is enough,
# whichever Python does it: so what it needs is made here, and is not needed by the next one.
.venv/docs/built: $(filter %.py %.cfg,$(SOURCES)) $(PAGES)
	@$(MAKE) --no-print-directory $(DOCS)/installed
	$(DOCS)/bin/sphinx-build --quiet --fail-on-warning --keep-going --jobs=auto -d $(DOCS)/doctrees docs $(@D)
	@touch $@

# Some Pythons and machines have no atheris: this fails there, and says so.
$(TEST)/fuzz-tools: $(TEST)/installed
	@rm -rf build actors/*.egg-info
	@$(@D)/bin/python -m pip install -qq --only-binary=atheris '.[test,dev,fuzz]'
	@$(@D)/bin/python -c "import atheris"
	@touch $@

.venv/%/made:
	@[ -n "$(VERSION)" ] || { echo "no Python 3.11 or later works here: name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(@D) >/dev/null 2>&1 || { rm -rf $(@D); \
		echo "$(PYTHON) cannot make a virtual environment (Debian: apt install python3-venv)" >&2; exit 1; }
	@touch $@
