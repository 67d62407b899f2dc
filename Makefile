# Everything is done in .venv, which is made and filled at first use; pip is the only thing that needs a network.
# Another environment can be used instead: make test VENV=path/to/env
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.garbage_fastai-ready
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test bench export docs clean

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

install: $(READY) ## Make .venv and install the library in it, with all that development needs

# Runs again only when what is to be installed changed
$(READY): settings.ini pyproject.toml setup.py
	@test -x $(BIN)/pip || { py=; \
		for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
			if $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then py=$$p; break; fi; done; \
		test -n "$$py" || { echo "Python 3.10 or newer is needed, and no python3 on PATH is: see https://www.python.org/downloads"; exit 1; }; \
		echo "Making $(VENV) with $$($$py --version)"; \
		$$py -m venv $(VENV) || { echo "$$py cannot make a virtual environment: on Debian and Ubuntu, apt install python3-venv"; exit 1; }; }
	@echo "Installing: a few minutes the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(READY) ## Train on drawn photos and print where the report is
	@out=runs/demo; n=1; while [ -e $$out ]; do n=$$((n+1)); out=runs/demo-$$n; done; \
		$(BIN)/garbage-fastai train sample --out $$out && echo "Report: $(CURDIR)/$$out/report.html"

test: $(READY) ## Run the notebooks, then the tests: library, README, docs and package
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test --n-workers 2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

bench: $(READY) ## Print how fast the library is against fastai and PyTorch here; ROWS='scan predict' for some of it
	$(BIN)/python benchmarks/bench.py $(ROWS)

export: $(READY) ## Write the library and README from the notebooks
	$(BIN)/nbdev-export
	$(BIN)/nbdev-clean
	$(BIN)/python tools/readme.py

docs: $(READY) ## Build the site in _docs, or without Quarto only process its pages
	@if command -v quarto >/dev/null; then $(BIN)/nbdev-docs; \
		else $(BIN)/python -c 'from nbdev.serve import proc_nbs; proc_nbs()' && \
		echo "Processed the pages into _proc. To build the site, install Quarto: https://quarto.org/docs/get-started"; fi

clean: ## Remove what was built; .venv and runs stay
	rm -rf _proc _docs build dist .pytest_cache .hypothesis *.egg-info
