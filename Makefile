# Everything a developer or a newcomer runs. All of it happens inside .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest

.PHONY: demo test test-lowest slow fuzz torture reliability docs notebooks package check format clean chromium web

demo: $(VENV)/.installed
	$(BIN)/tfprune run pipelines/digits.toml

# A file's tests stay together: they share what is slow to make.
test: $(VENV)/.installed-dev chromium web
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# The report is tested in Debian's chromium; without it, and no way to get it, those tests skip.
APT := DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20
CHROMIUM := $(APT) update && $(APT) install --yes --no-install-recommends chromium
chromium:
	@command -v chromium >/dev/null \
	|| sh -c '$(CHROMIUM)' >/dev/null 2>&1 || sudo -n sh -c '$(CHROMIUM)' >/dev/null 2>&1 \
	|| echo "no chromium: the browser tests will be skipped" >&2

# What runs files in a browser; without npm, the tests of the device wasm skip.
web: $(VENV)/.installed-dev
	@$(BIN)/tfprune devices install wasm >/dev/null 2>&1 \
	|| echo "no npm packages: the tests of the device wasm will be skipped" >&2

# The longer tests: deep nets, whole tables, and the run that is killed again and again.
slow: $(VENV)/.installed-dev chromium web
	$(BIN)/python -m pytest -m slow --timeout 900 --numprocesses 2 --dist loadfile

# Random graphs, other ones each time: all that is true of slimming is true of them.
fuzz: $(VENV)/.installed-dev
	TFPRUNE_FUZZ_EXAMPLES=1000 $(BIN)/python -m pytest tests/filters/test_fuzz.py --timeout=0

# The table of docs/reliability.md, from the marks of the tests.
reliability: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --collect-only --quiet --write-reliability > /dev/null

# The site, into site/: links, anchors and docstrings are checked. mkdocs reads the sources, it does not run them.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The notebooks of docs/notebooks, in a folder of their own: they write files.
notebooks: $(VENV)/.installed-notebooks
	rm -rf build/notebooks && mkdir -p build/notebooks && cp docs/notebooks/*.ipynb build/notebooks
	cd build/notebooks && ../../$(BIN)/python -m pytest --config-file /dev/null --rootdir . --nbmake --nbmake-timeout 300

# Everything on the oldest versions that are supported, in an environment of its own.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest --numprocesses 2 --dist loadfile

# The sdist and the wheel in dist/, and the wheel tried in an empty environment outside of the checkout.
package: $(VENV)/bin/python
	rm -rf dist build/package && mkdir -p build/package
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build --quiet
	$(PYTHON) -m venv build/package/venv
	build/package/venv/bin/python -m pip install --quiet dist/*.whl
	cd build/package && venv/bin/tfprune train vgg --data digits --epochs 3 -o dense.keras \
	&& venv/bin/tfprune slim dense.keras --macs 0.5 -o slim.keras \
	&& venv/bin/tfprune export slim.keras -f tflite-int8 --data digits -o out \
	&& venv/bin/tfprune measure out/model.int8.tflite --data digits

torture: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/torture.py --output benchmarks/results/torture.json

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(LOWEST) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

$(VENV)/.installed-notebooks: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[notebooks]'
	touch $@

$(LOWEST)/.installed: setup.cfg pyproject.toml .ci/lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade pip
	$(LOWEST)/bin/python -m pip install --quiet --constraint .ci/lowest.txt --editable '.[dev]'
	touch $@
