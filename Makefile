# make run: serve ./data on port 22133, and the dashboard on port 2223.   make test: all tests.   make lint: style and types.   make clean: start over.
# make docs: the site, in build/docs/html.   make linkcheck: follow its links to other sites.
# make cluster: three nodes of a cluster on loopback, with three etcds; with SHARDS=2 three of each shard.
# make bench: all benchmarks, into docs/benchmarks.rst.   With COMPILE=0 nothing is compiled.
# make share: man pages and shell completions.   make release VERSION=1.2.3 [DRY_RUN=1]: packaging/README.rst says more.

VENV ?= .venv
PYTHON ?= python3
DATA ?= data
ARGS ?=
TRIAL ?= twisted.trial
TESTS ?= test
VERSION ?=
export COMPILE ?= 1
export DRY_RUN

.PHONY: run cluster test lint docs linkcheck pictures bench share release clean

run: $(VENV)/.compiled-$(COMPILE)
	@PYTHONPATH="$$(cd $(VENV)/compiled && pwd)$${PYTHONPATH:+:$$PYTHONPATH}" exec $(VENV)/bin/twistd --nodaemon --pidfile= darner --data-dir=$(DATA) --http-port=2223 $(ARGS)

cluster: $(VENV)/.test
	@$(VENV)/bin/python -m bench.cluster_demo --shards=$(or $(SHARDS),1)

# By "python -m", so that the checkout comes before Python's own package "test".
test: $(VENV)/.test
	$(VENV)/bin/python -m $(TRIAL) $(TESTS)

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy

# No warnings; every link inside of the site leads somewhere.  The Python API is made by pydoctor, of the public modules.
docs: $(VENV)/.docs
	$(VENV)/bin/python -m sphinx -q -W --keep-going -n -b html -d build/docs/doctrees docs build/docs/html
	$(VENV)/bin/pydoctor --config=docs/pydoctor.ini
	$(VENV)/bin/python -m docs.site.check_links build/docs/html

linkcheck: $(VENV)/.docs
	$(VENV)/bin/python -m sphinx -q -b linkcheck -d build/docs/doctrees docs build/docs/linkcheck

# The pictures of the documents.
pictures: $(VENV)/.test
	$(VENV)/bin/python -m docs.site.pictures
	$(VENV)/bin/python -m test.web.dashboard.screenshots --seconds=600 screenshots
	cp screenshots/queues-wide-light.png docs/images/dashboard_queues.png
	cp screenshots/queue-wide-light.png docs/images/dashboard_queue.png

# From the directory of what is compiled, so that this is what is measured: paths in ARGS and DARNER_CPP are absolute ones.
bench: $(VENV)/.compiled-$(COMPILE) $(VENV)/.bench
	cd $(VENV)/compiled && ../bin/python -m bench $(ARGS)

# The man pages and the shell completions, which packages install below /usr/share.
share: $(VENV)/.run
	$(VENV)/bin/python packaging/man/generate.py packaging/share

# make release VERSION=1.2.3; with DRY_RUN=1 in a copy, of which the artefacts alone remain.
release: $(VENV)/.dev
	PYTHON=$(VENV)/bin/python bash packaging/release $(VERSION)

$(VENV)/.run: setup.cfg pyproject.toml
	PYTHON=$(PYTHON) bash .ci/setup $(VENV) web,cli
	@touch $@

$(VENV)/.compiled-$(COMPILE): $(VENV)/.run setup.py $(shell find darner -name '*.py' -o -path 'darner/web/static/*')
	@rm -f $(VENV)/.compiled-*
	@bash .ci/compile $(VENV)

$(VENV)/.test: setup.cfg pyproject.toml
	PYTHON=$(PYTHON) bash .ci/setup $(VENV) test
	@touch $@

$(VENV)/.bench: setup.cfg pyproject.toml
	PYTHON=$(PYTHON) bash .ci/setup $(VENV) bench
	@touch $@

$(VENV)/.docs: setup.cfg pyproject.toml
	PYTHON=$(PYTHON) bash .ci/setup $(VENV) test,docs
	@touch $@

$(VENV)/.dev: setup.cfg pyproject.toml
	PYTHON=$(PYTHON) bash .ci/setup $(VENV) dev
	@touch $@

clean:
	rm -rf $(VENV) build dist packaging/share *.egg-info _trial_temp* .coverage* .mypy_cache .ruff_cache .hypothesis
	find darner -name '*.so' -delete
	find . -name __pycache__ -prune -exec rm -rf {} +
