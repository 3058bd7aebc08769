# make demo | install | test | check | prove | report-picture | phantom-pictures | demo-model | lock | gpu-check | clean
# Each target sets up what it needs in .venv; nothing but Python >= 3.11 has to be there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
LOWEST := .venv-lowest
export MMINFER_TEST_SLIDES ?= ../shared/slides

# Two processes. Each test computes with one thread where a library asks the environment: two on two cores disturb each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
# `make prove QUARTER=2` runs a quarter of the proofs, 0 to 3; without it, all of them.
PROOFS := $(PYTEST) $(if $(QUARTER),--quarter $(QUARTER))

# Other files need not be collected for the interpreter's tests: that took longer than a third of them.
INTERPRETED = $(shell grep -rlE "mark\.interpreter" tests --include='test_*.py')

# Runs every part, also after one has failed, then names those that failed.
define every
@failed=; for part in $(1); do $(MAKE) --no-print-directory $$part || failed="$$failed $$part"; done; \
if [ -n "$$failed" ]; then echo "make $@: failed:$$failed" >&2; exit 1; fi
endef

.PHONY: demo install test check lint types check-package test-fast test-interpreter prove prove-fast prove-interpreter \
  prove-lowest report-picture phantom-pictures demo-model lock gpu-check gpu-tests gpu-sanitizer gpu-rates clean

# Two drawn slides, scored: what a newcomer should see first.
demo: $(VENV)/.core
	$(BIN)/mminfer demo

install: $(VENV)/.core
	$(BIN)/mminfer doctor

test: $(VENV)/.dev
	$(call every,check check-package test-fast test-interpreter)

# What needs no run: lint, contracts between modules, types.
check: $(VENV)/.dev
	$(call every,lint types)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/mypy --num-workers 2

# The sdist, the wheel made from it, and the tests marked `wheel` against that wheel, without the sources and without the network.
check-package: $(VENV)/.dev
	$(BIN)/python tests/check_package.py

# The tests marked `wheel` run in check-package.
test-fast: $(VENV)/.dev
	$(PYTEST) -m "not slow and not interpreter and not gpu and not wheel"

test-interpreter: $(VENV)/.dev
	TRITON_INTERPRET=1 $(PYTEST) -m "interpreter and not slow" $(INTERPRETED)

# The lowest versions are proved with quarter 3.
prove: $(VENV)/.dev
	$(call every,prove-fast prove-interpreter $(if $(filter-out 3,$(QUARTER)),,prove-lowest))

prove-fast: $(VENV)/.dev
	$(PROOFS) -m "slow and not interpreter and not gpu"

prove-interpreter: $(VENV)/.dev
	TRITON_INTERPRET=1 $(PROOFS) -m "interpreter and slow" $(INTERPRETED)

# With the lowest version that pyproject.toml allows of each package it names. Old versions warn of what is new: let them.
# Old Pillow has no ZSTD. What a help page imports is Typer's affair, and the words of a schema pydantic's: both are held with the locked versions.
prove-lowest: $(LOWEST)/.dev
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist worksteal -W default -p no:cacheprovider \
	  -m "not slow and not interpreter and not gpu" -k "not imports and not schema_in_the_package and not zstd" \
	  $(addprefix tests/melanoma_infer/,cli engines evaluation reports slides training verification) \
	  tests/melanoma_infer/tiles/test_bilinear.py tests/export/test_seal.py tests/export/test_from_module.py tests/export/test_from_onnx.py

# The picture in the README: the top of the demo's report, in a palette, as Chromium shows it.
report-picture: $(VENV)/.core
	rm -rf build/report-picture
	$(BIN)/mminfer demo --out build/report-picture
	chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1100,1400 \
	  --screenshot=build/report.png "file://$$(echo $(CURDIR)/build/report-picture/results/with-lesion-*/report.html)"
	$(BIN)/python -c "from PIL import Image; Image.open('build/report.png').convert('RGB').resize((900, 1145), Image.LANCZOS).quantize(256).save('docs/report.png', optimize=True)"

# The pictures of docs/phantom.md.
phantom-pictures: $(VENV)/.core
	$(BIN)/python benchmarks/phantom_pictures.py docs/phantom

# The packaged model, learned anew from drawings: docs/demo-model.md. PRECISION=fp32 for a CPU without AVX-512 BF16.
PRECISION ?= bf16
demo-model: $(VENV)/.dev
	rm -rf build/demo-model
	mkdir -p build/demo-model
	$(BIN)/mminfer phantom cohort --out build/demo-model/data --tiles 8000 --slides 40 --card docs/demo-card.toml
	$(BIN)/mminfer train build/demo-model/data --card docs/demo-card.toml --out build/demo-model/run --epochs 12 \
	  --set schedule=cosine --set precision=$(PRECISION) --set depth_tiles=96 --set dropout=0.5 --set map_weight=1 --set measured_depth=0.5 --precisions int8
	rm -rf melanoma_infer/bundle/demo.mminfer
	cp -r build/demo-model/run/model.mminfer melanoma_infer/bundle/demo.mminfer

# torch is left out of the lock: one version of it has a CPU and several CUDA builds, each with other hashes. What needs it
# is in the lock, so that the lock is installed with --no-deps: it is complete but for torch.
lock: $(VENV)/.uv
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-annotate --upgrade \
	  --python-version 3.11 pyproject.toml -o locks/core.txt
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-annotate --upgrade \
	  --python-version 3.11 --extra dev --overrides locks/without-torch.in -c locks/core.txt \
	  pyproject.toml locks/torch-needs.in -o locks/dev.txt
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-annotate --resolution lowest-direct \
	  --python-version 3.11 --extra dev --overrides locks/without-torch.in \
	  pyproject.toml locks/torch-needs.in -o locks/lowest.txt

# The first hour on a GPU: every test that needs one, where a skipped test fails, so that it is not green where nothing ran;
# the kernels under NVIDIA's sanitizer where it is installed; and the rates of kernels, engines and a slide at the full width
# of the network, which go into benchmarks/results. TENSORRT=tensorrt-cu12 for drivers before 580.
TENSORRT ?= tensorrt
FULL := build/full-width.mminfer
gpu-check: $(VENV)/.dev
	@$(BIN)/python -c "import torch, sys; sys.exit(not torch.cuda.is_available())" || \
	  (echo "gpu-check: there is no CUDA device here, so nothing was checked." >&2; exit 1)
	$(BIN)/python -m pip install -q --no-build-isolation -e '.[$(TENSORRT)]'
	$(BIN)/python -m pip install -q -e '.[pycuda]' || echo "gpu-check: PyCUDA needs CUDA's compiler and headers: its test is not run." >&2
	$(call every,gpu-tests gpu-sanitizer gpu-rates)

gpu-tests:
	$(BIN)/python -m pytest -m gpu --fail-on-skip

gpu-sanitizer:
	@if command -v compute-sanitizer >/dev/null; then \
	  compute-sanitizer --error-exitcode 1 $(BIN)/python -m pytest -m gpu tests/kernels; \
	else echo "gpu-check: compute-sanitizer is not on the PATH, so nothing was run under it." >&2; fi

gpu-rates:
	rm -rf build/full-width*.mminfer
	$(BIN)/mminfer bundle create build/full-width-fp32.mminfer --random 7 --width 64
	$(BIN)/mminfer export build/full-width-fp32.mminfer --precision fp16 --out build/full-width-fp16.mminfer
	$(BIN)/mminfer export build/full-width-fp16.mminfer --precision int8 --out $(FULL)
	for batch in 1 32 128; do $(BIN)/mminfer bench kernels --bundle $(FULL) --batch $$batch \
	  --save benchmarks/results/kernels-batch-$$batch.json || exit 1; done
	$(BIN)/mminfer phantom slide --out build/gpu-check.svs --overwrite
	$(BIN)/python benchmarks/gpu_rates.py build/gpu-check.svs --bundle $(FULL) --save benchmarks/results/gpu-rates.csv

clean:
	rm -rf $(VENV) $(LOWEST) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || (echo "mminfer needs Python 3.11 or newer: make PYTHON=python3.11" && exit 1)
	$(PYTHON) -m venv $(VENV)

# The core alone. Hatchling, which builds the package, is installed by pip for the moment of building.
$(VENV)/.core: locks/core.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --require-hashes -r locks/core.txt
	$(BIN)/python -m pip install -q --no-deps -e .
	touch $@

$(VENV)/.dev: locks/dev.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --no-deps --require-hashes -r locks/dev.txt
	$(BIN)/python -m pip install -q $(TORCH)
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@ $(VENV)/.core

$(LOWEST)/.dev: locks/lowest.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install -q --no-deps --require-hashes -r locks/lowest.txt
	$(LOWEST)/bin/python -m pip install -q $(TORCH)
	$(LOWEST)/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.uv: | $(VENV)/bin/python
	$(BIN)/python -m pip install -q "uv>=0.9,<1"
	touch $@
