# make demo    a small world, the whole chain on it, a report to look at
# make test    lint, types, and the tests that run without a GPU, but the slow ones
# make help    the rest
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-long test-fast test-labelstudio chromium lint lock benchmarks \
  benchmark-chain benchmark-perception benchmark-labels benchmark-tavlo clean

PYTHON ?= python3
# Test files at a time; the tests of one file share what is slow to make.
JOBS ?= 2
# Where several run at a time, each computes on one thread: more would wait for one another.
ONE_THREAD := OMP_NUM_THREADS=1
BIN := .venv/bin
READY := .venv/.ready

help: ## Show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

setup: $(READY) ## Make .venv with every extra, from the pins in requirements.txt

# uv comes from the Python registry into the environment itself; both steps check hashes.
$(READY): requirements.txt requirements-uv.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Error: Python 3.11 or newer is needed; name one with 'make PYTHON=python3.12 ...'."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv \
	  || { rm -rf .venv; echo "Error: no venv module; on Debian: apt install python3-venv."; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## Run the whole chain on a rendered world (at most 10 minutes)
	$(BIN)/avatar-build demo --workspace demo-workspace

test: $(READY) lint ## Lint, types, and the tests that run without a GPU, but the slow ones
	$(ONE_THREAD) $(BIN)/python -m pytest -m "not gpu and not slow" -n $(JOBS) --dist loadfile --durations 20

test-slow: $(READY) ## Kills by the dozen, the chain in a bucket, real videos: minutes each
	$(ONE_THREAD) $(BIN)/python -m pytest -m "slow and not long and not gpu and not labelstudio" -n $(JOBS) --dist loadfile --durations 20

test-long: $(READY) ## Nodes of Ray, job arrays, the rehearsal of benchmarks/gpu, one after the other
	$(BIN)/python -m pytest -m "long and not gpu"

test-fast: $(READY) ## Only the tests that take seconds
	$(BIN)/python -m pytest -q -m "not gpu and not slow and not labelstudio and not browser"

# The server has an environment of its own: its packages and ours, and our overrides, do not mix.
LABEL_STUDIO := .venv-labelstudio/.ready

test-labelstudio: $(READY) $(LABEL_STUDIO) chromium ## Tests against a real Label Studio, people's pages in Chromium
	$(BIN)/python -m pytest -m labelstudio

chromium: ## Install Debian's Chromium where there is none, as root
	@test -x "$${AVATAR_CHROMIUM:-/usr/bin/chromium}" || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	  && apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium >/dev/null; } \
	  || { echo "Error: no Chromium. On Debian: apt install chromium; elsewhere name yours in AVATAR_CHROMIUM."; exit 1; }

$(LABEL_STUDIO): labeling/projects/label-studio.txt $(READY)
	@test -x .venv-labelstudio/bin/python || $(PYTHON) -m venv .venv-labelstudio
	$(BIN)/uv pip install --no-config --quiet --python .venv-labelstudio/bin/python --require-hashes \
	  -r labeling/projects/label-studio.txt
	@touch $@

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

benchmarks: $(READY) ## Measure again what benchmarks/results holds (each takes minutes; ffmpeg for comparison)
	$(BIN)/python -m benchmarks.runner
	$(BIN)/python -m benchmarks.scale --videos 4000 --videos 17500 --videos 70000 --out benchmarks/results/scale.json
	$(BIN)/python -m benchmarks.media --out benchmarks/results/media.json
	$(BIN)/python -m benchmarks.download
	$(BIN)/python -m benchmarks.models --out benchmarks/results/models.json
	$(BIN)/python -m benchmarks.tuning --out benchmarks/results/tuning.json
	$(BIN)/python -m benchmarks.evaluate
	$(BIN)/python -m benchmarks.clip_cache
	$(BIN)/python -m benchmarks.release
	$(BIN)/python -m benchmarks.baselines
	$(BIN)/python -m benchmarks.tavlo_speed
	$(BIN)/python -m benchmarks.labeling --prompts
	@echo "Not among them, as they need videos, a server, hours: make benchmark-chain benchmark-perception benchmark-labels benchmark-tavlo"

benchmark-chain: $(READY) ## The same, the offline chain on a few videos, command by command: VIDEOS=DIR LIST=CSV
	$(BIN)/python -m benchmarks.chain --videos $(VIDEOS) --list $(LIST)

benchmark-perception: $(READY) ## The same, what ears and eyes find on videos judged by eye: VIDEOS=DIR MODELS=DIR
	$(BIN)/python -m benchmarks.perception --videos $(VIDEOS) --models $(MODELS) --out benchmarks/results/perception.json
	$(BIN)/python -m benchmarks.tracks --videos $(VIDEOS) --models $(MODELS) --out benchmarks/results/tracks.json
	$(BIN)/python -m benchmarks.mask_tracks --videos $(VIDEOS) --out benchmarks/results/mask_tracks.json
	$(BIN)/python -m benchmarks.grabcut --videos $(VIDEOS) --models $(MODELS) --out benchmarks/results/grabcut.json

benchmark-labels: $(READY) $(LABEL_STUDIO) ## The same, frames and clips to a real Label Studio and back, a person's time
	$(BIN)/python -m benchmarks.labeling --label-studio .venv-labelstudio/bin/label-studio
	$(BIN)/python -m benchmarks.labeling --layouts .venv-labelstudio/bin/label-studio
	$(BIN)/python -m benchmarks.labeling --clips .venv-labelstudio/bin/label-studio

benchmark-tavlo: $(READY) ## The same, hours: TAVLO against a control, and what makes it localise; goes on in tavlo-work, tavlo-factorial
	$(BIN)/python -m benchmarks.tavlo_synthetic --work tavlo-work
	$(BIN)/python -m benchmarks.tavlo_factorial --work tavlo-factorial

lock: $(READY) ## Resolve requirements.txt anew; commit the result
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet -o requirements.txt
	echo "label-studio==$$($(BIN)/python -c 'from labeling.projects.serve import VERSION; print(VERSION)')" \
	  | $(BIN)/uv pip compile --no-config - --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet \
	  -o labeling/projects/label-studio.txt

clean: ## Remove the environments and the demo's workspace
	rm -rf .venv .venv-labelstudio demo-workspace
