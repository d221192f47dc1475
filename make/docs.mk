# The pages of docs/, in an environment of their own: they are built without importing voxmill.
.PHONY: docs

DOCS := .venv-docs

# Into site/. A broken link or a missing page fails it.
docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --strict --quiet

$(DOCS)/.installed: docs/requirements.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip --disable-pip-version-check install --quiet -r docs/requirements.txt
	touch $@
