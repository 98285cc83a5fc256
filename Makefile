# make demo   an environment, then the main job: train, export, verify, benchmark, report
# make test   an environment, then linter, type checker, import rules and the fast tests
# make slow   the tests that take minutes
# make readers  what tests/readers needs besides: three packages, and onnxruntime-web in build/web (needs npm)
# make arm64  ONNX Runtime for arm64 and QEMU in build/arm64, for tests/readers (needs apt and Debian's keyring, not root)
# make onnxruntime-cpp  ONNX Runtime's C++ library of Debian 13 in build/onnxruntime-cpp, for tests/examples (the same)
# make phones   tests/edge with ExecuTorch and LiteRT, in an environment of its own in build/phones
# make triton  a Triton Inference Server in build/triton, for tests/packages (Linux; needs a Python with a shared libpython)
# make mlserver  MLServer in build/mlserver, for tests/examples (a Python below 3.13)
# make docs   the documentation as a site, in site/
# make live   the same, with a page that runs the demo's model in the browser (needs npm)
# make dist   the sdist and the wheel in dist/, with their contents checked

PYTHON ?= python3
TRITON_PYTHON ?= /usr/bin/python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
WEB    := build/web/node_modules/onnxruntime-web
ORT    := $(WEB)/package.json

# What the prose check reads: files and folders of Markdown and Python.
PROSE  := README.md CONTRIBUTING.md CHANGELOG.md docs examples studies tofe_export plugins

# Empty is off: tests start interpreters, which need not compile the package each time.
export PYTHONDONTWRITEBYTECODE :=
export NO_MKDOCS_2_WARNING := 1  # the theme's advertisement at every build

.PHONY: demo test lint slow readers arm64 onnxruntime-cpp phones triton mlserver docs live diagram dist clean

demo: $(STAMP)
	$(BIN)/tofe-export demo --out demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

readers: $(STAMP) $(ORT)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,readers]'

$(ORT):
	mkdir -p build/web
	npm install --prefix build/web --ignore-scripts --no-audit --no-fund onnxruntime-web

arm64: $(STAMP)
	PIP="$(BIN)/python -m pip" tools/arm64.sh build/arm64 \
	  $$($(BIN)/python -c 'import numpy, onnxruntime; print(*(f"{one.__name__}=={one.__version__}" for one in (numpy, onnxruntime)))')

onnxruntime-cpp:
	tools/debian.sh build/onnxruntime-cpp amd64 libonnxruntime-dev

phones:
	$(PYTHON) -m venv build/phones
	build/phones/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,executorch,litert]' beartype hypothesis pytest
	build/phones/bin/python -m pytest -p no:anyio tests/edge   # its plugin warns under this pytest, and nothing here uses it

triton:
	$(TRITON_PYTHON) -m venv build/triton
	build/triton/bin/python -m pip install --quiet --disable-pip-version-check 'nvidia-pytriton>=0.7,<0.8' 'numpy<2' onnxruntime

mlserver:
	$(PYTHON) -m venv build/mlserver
	build/mlserver/bin/python -m pip install --quiet --disable-pip-version-check 'mlserver>=1.7,<1.8' 'uvloop<0.22' onnxruntime

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/prose.py $(PROSE)
	$(BIN)/python tools/house.py
	$(BIN)/python -m tools.rooms --check
	$(BIN)/mkdocs build --quiet --site-dir build/site

docs: $(STAMP)
	$(BIN)/mkdocs build --quiet
	@echo "Read site/index.html, or with search: $(BIN)/mkdocs serve"

live: $(STAMP) $(ORT)
	test -f demo/model.onnx || $(MAKE) demo
	rm -rf build/live
	$(BIN)/tofe-export package demo/model.onnx --for web --runtime $(WEB)/dist --data digits -o build/live
	$(BIN)/mkdocs build --quiet
	@echo "Look at it: $(BIN)/python -m http.server --directory site"

# Draws docs/images/rooms.svg again after a change of the import contract.
diagram: $(STAMP)
	$(BIN)/python -m tools.rooms

dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python tools/check_dist.py

# One environment for both, so that the packages are installed once.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12"; exit 3; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 3; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo build dist site .mypy_cache .ruff_cache .hypothesis
