# Everything a contributor runs. A clean clone needs only make and Python 3.11; each target sets itself up.
PYTHON ?= python3.11
VENV ?= .venv
# Options of pip for torch alone, such as the index of CPU-only builds.
TORCH_FLAGS ?=
# Options of pytest, such as `make test TESTS="tests/prompts -m 'not slow'"`.
TESTS ?=

BIN := $(VENV)/bin
CORE := $(VENV)/.core
INSTALLED := $(VENV)/.installed
# Options of the benchmark, such as `make bench BENCH="--quick"`.
BENCH ?=

.PHONY: setup test test-faults test-lowest lint docs tutorial demo starter-library bench bench-scale bench-serve verify-catalog clean

setup: $(INSTALLED)

# What a user gets from `pip install .`. torch comes first and alone: it is by far the largest download, and the one whose
# build is chosen per machine.
$(CORE): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(TORCH_FLAGS) "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -c constraints.txt -e .
	touch $@

$(INSTALLED): $(CORE)
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev,docs,metrics,ray,peft,serve,lm-eval]"
	touch $@

test: setup
	$(BIN)/python -m pytest $(TESTS)

# Kills of Ray's workers: minutes, since each new one takes seconds to start; all other faults are part of `make test`.
test-faults: setup
	$(BIN)/python -m pytest tests/faults -m campaign $(TESTS)

# The tests with the oldest releases that pyproject.toml allows (torch excepted, whose old builds are gigabytes), in an
# environment of its own. Warnings are no errors here: old releases have theirs with new ones of what they need.
LOWEST := .venv-lowest
test-lowest:
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install $(TORCH_FLAGS) uv "$$(grep '^torch==' constraints.txt)"
	grep '^torch==' constraints.txt > $(LOWEST)/torch.txt
	$(LOWEST)/bin/uv pip install --python $(LOWEST)/bin/python --override $(LOWEST)/torch.txt \
		--resolution lowest-direct -e ".[metrics,serve,peft]"
	$(LOWEST)/bin/uv pip install --python $(LOWEST)/bin/python -e ".[dev]"
	$(LOWEST)/bin/python -m pytest -W default $(TESTS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src
	$(BIN)/lint-imports

# The site: build/site/index.html, which needs no server and no network.
docs: setup
	$(BIN)/python docs/site/build.py

# Runs the notebook of the tutorial and keeps what it printed.
tutorial: setup
	$(BIN)/python docs/site/run_tutorial.py

# A target task with 100 training examples, three seeds an arm, 40 steps each. A trial of all sources of the starter
# library pays for itself out of transfer's steps.
DEMO := news_sentiment --train-size 100 --validation-size 50 --test-size 200 --steps 40 --evaluate-every 8 --seeds 3 \
	--library starter --rank trial --calibrate every

demo: $(CORE)
	mkdir -p build/demo
	$(BIN)/spoton adapt $(DEMO) --out build/demo/prompt.safetensors --json > build/demo/result.json
	@$(BIN)/python -c "import json; print('\n' + json.load(open('build/demo/result.json'))['verdict'])"
	@echo "Learning curves of both arms: build/demo/prompt.png. All numbers: build/demo/result.json."

# Tunes the source prompts that the package ships. Rows of tasks that are not on PyPI come from SPOTON_DATA_DIR.
starter-library: setup
	$(BIN)/python -m experiments.starter_library

# The engine against PEFT, some 25 minutes on two cores that do nothing else. See docs/performance.md.
bench: setup
	$(BIN)/python -m experiments.bench $(BENCH)

# What grows with rows, prompts and cells: every script of experiments/scale, some ten minutes.
bench-scale: setup
	for script in experiments/scale/[a-z]*.py; do $(BIN)/python -m experiments.scale.$$(basename $$script .py) || exit 1; done

# Serving 100 prompts, against PEFT: a few minutes on two cores that do nothing else; then the section of the page.
bench-serve: setup
	$(BIN)/python -m experiments.serving.bench $(BENCH)
	$(BIN)/python -m experiments.serving.bench --write-docs

# Needs a network: asks the Hub for the first rows of every split that the catalog names, and renders them.
verify-catalog: setup
	$(BIN)/python experiments/verify_catalog.py

clean:
	rm -rf build dist .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
