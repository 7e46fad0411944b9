# make train    set up and train          make test     set up and test
# make watch    set up and watch          make bench    set up and measure
# make gallery  set up and make the pictures of README.md and docs/
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: train watch test lint bench gallery setup clean

train: setup
	$(RUN) simulate.py

watch: setup
	$(RUN) simulate.py --eval --render

# files in two processes: kernels that both need are compiled once, as a rule
test: lint
	$(RUN) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .

bench: $(VENV)/.bench
	$(RUN) -m benchmarks.physics
	$(RUN) -m benchmarks.environment
	$(RUN) -m benchmarks.training --quick

gallery: setup
	$(RUN) -m examples.gallery

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q --disable-pip-version-check -r requirements.txt
	@# a second build of raylib, which draws without a display, kept apart from the first
	$(RUN) -m pip install -q --disable-pip-version-check --no-deps --upgrade --target $(VENV)/software-renderer raylib_software==6.2.0.0
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.ready
	$(RUN) -m pip install -q --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/.bench: requirements-bench.txt $(VENV)/.dev
	$(RUN) -m pip install -q --disable-pip-version-check -r requirements-bench.txt
	touch $@

clean:
	rm -rf $(VENV) .cache runs
