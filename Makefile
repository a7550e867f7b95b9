# First contact: `make reproduce` and `make test`. Both make .venv and install what is pinned in
# constraints.txt, if that is not done yet.

PYTHON ?= python3
CORES ?= all
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: install reproduce test test-long docs lint clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; ok = (3, 11) <= v <= (3, 14); \
	sys.exit(None if ok else "error: Python %d.%d found, 3.11 to 3.14 is needed; name one: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[pipeline,dev,docs]'
	touch $@

reproduce: install
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores $(CORES) > /dev/null
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --report results/.unfinished-report.html --quiet all
	mv results/.unfinished-report.html results/report.html
	@sed '/^## /,$$d' results/summary.md
	@echo "All tables and figures: results/report.html. To explore them: results/explorer.html"

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long"

test-long: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m long

docs: install
	$(BIN)/sphinx-build -E -W --keep-going --quiet -b html docs site

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check --line-length 100 Snakefile workflow
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --lint

clean:
	rm -rf .venv
