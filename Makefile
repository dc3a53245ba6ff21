# Everything starts here: `make help`. Needs git, GNU make and Python >= 3.11; the rest is set up in .venv.
.DELETE_ON_ERROR:
.PHONY: help setup data paper train estimate registered figures notebooks test lint mutants bench gpu-check lab labs grade bundle site site-check slides clean

PYTHON ?= python3
PY := .venv/bin/python
# The profile that fits an evening: on a GPU (with a torch that can use it) another than without. It is asked for at the
# first use, in a recipe: by then the environment is there (and without a driver torch need not be asked). The paper's
# protocol takes days of a GPU: PROFILE=paper.
ON_GPU := nvidia-smi -L >/dev/null 2>&1 && $(PY) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null
PROFILE ?= $(eval PROFILE := $(shell $(ON_GPU) && echo evening || echo laptop))$(PROFILE)
# Minutes after which no run is started (the next call carries on), and the Dask scheduler of other machines: docs/machines.md.
BUDGET ?=
EXECUTOR ?=
CLAIMS ?=

# The certificates that the system trusts, as pip does: a network may have its own.
UV = UV_SYSTEM_CERTS=1 UV_FIND_LINKS="$${UV_FIND_LINKS:-$$($(PYTHON) -m pip config get global.find-links 2>/dev/null)}" \
  .venv/bin/uv pip install --python $(PY) --compile-bytecode -c constraints.txt

# The pages are the notebooks that a profile names; any other one in notebooks/ is a reader's own.
NOTEBOOKS := $(sort $(shell sed -n 's/^\([A-Za-z0-9_-]*\):.*/\1/p' notebooks/profiles/*.yml))
CODE := $(shell find snipkit -name '*.py' -o -name '*.csv')

help:  ## this list
	@echo "make TARGET [PROFILE=lesson|laptop|overnight|evening|paper] [BUDGET=minutes] [EXECUTOR=tcp://host:port]   (profile here: $(PROFILE))"; echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' Makefile | expand -t 14

setup: .venv/.done  ## the environment in .venv, once (1 minute on a fast line)

.venv/.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "snipkit needs Python 3.11 or later: make PYTHON=python3.11 …")'
	@$(PYTHON) -c 'import shutil; free = shutil.disk_usage(".").free / 1e9; free < 7 and print(f"warning: {free:.1f} GB of disk are free here. Set-up takes 7 with CUDA libraries, 3 by UV_TORCH_BACKEND=cpu")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet uv==0.13.9
	$(UV) -e '.[study,notebooks,test]'
	@touch $@

data: setup  ## fetch and verify the data sets, once (under a minute)
	$(PY) -m snipkit.study fetch

train: data  ## the training of `make paper` alone, without notebooks
	$(PY) -m snipkit.study train --profile $(PROFILE) $(BUDGET:%=--budget %) $(EXECUTOR:%=--executor %)

estimate: setup  ## how long a profile will take, by step times on record; trains nothing (seconds)
	$(PY) -m snipkit.study estimate --profile $(PROFILE)

bundle: data  ## the data sets in one zip file for a class without a network, build/data-bundle.zip (a minute)
	$(PY) -m snipkit.study bundle

paper: train  ## all training, figures, tables and REPLICATION.md (lesson: 6 minutes, laptop: 10, evening: 5 hours of a GPU, paper: GPU days; resumable)
	$(MAKE) --no-print-directory PROFILE=$(PROFILE) $(NOTEBOOKS:%=build/$(PROFILE)/%.ipynb)
	@echo "figures and tables: figures/$(PROFILE)/   notebooks: build/$(PROFILE)/"
	$(PY) -m snipkit.study report

# Only where PROFILE is given, as `paper` above does: without it, it is not known before the environment is there.
# The records are read when this runs, after the training: new ones draw the figures anew.
ifneq ($(origin PROFILE),file)
build/$(PROFILE)/%.ipynb: notebooks/%.ipynb notebooks/profiles/$(PROFILE).yml $(CODE) $(wildcard results/$(PROFILE)/*.jsonl)
	$(PY) -m snipkit.study execute $* $@ --profile $(PROFILE)
endif

registered: data  ## train the registered replication (REGISTRATION.md; resumable; CLAIMS="table1 figure3" trains those alone)
	$(PY) -m snipkit.study registered $(CLAIMS) $(BUDGET:%=--budget %)

figures: setup  ## draw the figures again from the records alone, and rewrite REPLICATION.md (a minute)
	$(PY) -m snipkit.study figures
	$(PY) -m snipkit.study report

notebooks: data  ## run the committed notebooks again in place, from the committed records (minutes)
	for name in $(NOTEBOOKS); do $(PY) -m snipkit.study execute $$name notebooks/$$name.ipynb --profile overnight || exit 1; done
	$(PY) -m snipkit.study report

labs: data  ## the twins of the labs, for students and with solutions, from notebooks/labs/source (seconds)
	$(PY) notebooks/labs/build.py

grade: setup  ## points a part for filled-in labs: LAB=path.ipynb, or a folder (JSON and Markdown beside each, grades.csv; seconds each)
	@test -n "$(LAB)" || { echo "make grade LAB=path.ipynb, or LAB=folder"; exit 1; }
	$(PY) notebooks/labs/grade.py "$(LAB)" $(TIMEOUT:%=--timeout %)

lint: setup  ## style of code and notebooks, types of the method (seconds)
	.venv/bin/ruff check
	.venv/bin/ruff format --check --quiet
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

test: setup  ## unit tests; every notebook against its stored outputs, and trained anew at lesson scale (7 minutes)
	$(MAKE) --no-print-directory -j 2 data lint
	$(PY) -m pytest -q -n 3 --dist worksteal tests tests/lesson.py
	$(PY) -m pytest -q -n 3 --dist loadfile --nbval --nbval-current-env --nbval-cell-timeout=600 --nbval-sanitize-with=notebooks/nbval.cfg notebooks

bench: data  ## performance, as ratios measured side by side (4 minutes; on a quiet machine, and on its GPU if it has one)
	$(PY) tools/bench.py

gpu-check: data  ## to be run first on a GPU: masks as on the CPU, recurrent networks, stacks, compiling, step times (5 minutes)
	$(PY) tools/gpu_check.py

mutants: setup  ## put mistakes into a copy of the code, one at a time, and count those that the unit tests notice (half an hour)
	$(PY) tools/mutants.py

lab: data  ## JupyterLab on the notebooks (starts in seconds)
	.venv/bin/jupyter lab --notebook-dir=notebooks

site: build/site-tools build/mathjax/tex-svg-full.js  ## the site in build/site, from the notebooks as they are (seconds; the first time fetches Sphinx and MathJax)
	$(if $(filter no,$(SOLUTIONS)),rm -rf build/site build/site-doctrees # with the solutions of an earlier build)
	$(PY) docs/assemble.py
	.venv/bin/sphinx-build --quiet --fail-on-warning --keep-going -c docs -d build/site-doctrees build/site-source build/site
	@echo "site: build/site/index.html"

build/site-tools: .venv/.done
	$(UV) -e '.[site]'
	@mkdir -p build && touch $@

# By npm, which knows where its registry is. The reader's browser then asks no CDN.
build/mathjax/tex-svg-full.js:
	@command -v npm >/dev/null || { echo "make site needs npm (part of Node.js), to fetch MathJax for the formulas"; exit 1; }
	mkdir -p $(@D)
	cd $(@D) && npm pack --silent --ignore-scripts mathjax@3.2.2 && tar -xzf mathjax-3.2.2.tgz --strip-components=2 package/es5/$(@F)
	rm $(@D)/*.tgz && touch $@

slides: site  ## the slides as build/slides.pdf, and with notes as build/slides-notes.pdf, by headless Chromium (seconds)
	$(PY) docs/slides_pdf.py

site-check: site  ## the site in headless Chromium: no request to other hosts, no error, the slider, the folds, a phone (a minute)
	$(PY) docs/check_site.py

clean:  ## remove the environment and what was built; data, records and figures stay (seconds)
	rm -rf .venv build *.egg-info .pytest_cache .hypothesis
