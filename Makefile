# make setup   a virtual environment in .venv with pinned versions (core dependencies)
# make run     the whole comparison on the embedded model: DOMAIN=math|code|arc
# make test    the tests, a process for each core (at most 4)        make check   lint and types
# make test-interop  the tests that need lm-eval, EvalPlus and experiment trackers, in .venv-interop
# make results the committed results again (resumable; SEEDS=3)
# make perf    speed and memory against peers, into benchmarks/perf/results.csv (ARGS='--only sampling')
# make test-vllm  the engines vllm, ray and ray-vllm without a GPU, in an environment of their own in .venv-vllm (2 GB)
# make perf-vllm  our sampler against vLLM on a CPU, into the same file
# make test-ray   the ray engine on two nodes of this machine (installs Ray into .venv, 240 MB)
# make audit   pinned packages against PyPI's database of known vulnerabilities, by pip-audit in .venv-audit
# make calibrate  how often the report's intervals hold, against enumeration, into docs/calibration.md
#
# TORCH_INDEX=URL   another package index to take torch from, e.g. PyTorch's own index of CPU builds, which avoids
#                   the CUDA packages on Linux. When it cannot be reached, the ordinary sources are used.

PYTHON ?= python3
DOMAIN ?= code
SEEDS ?= 3
TORCH_INDEX ?=
ARGS ?=
BIN := .venv/bin
INTEROP := .venv-interop/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
torch_first = test -z "$(TORCH_INDEX)" || $(1) --no-deps --retries 0 --timeout 15 --extra-index-url "$(TORCH_INDEX)" torch || echo "TORCH_INDEX $(TORCH_INDEX) did not serve torch; using the ordinary sources"
VLLM := .venv-vllm
VLLM_PIP := $(VLLM)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps

.PHONY: setup run test test-interop check results perf calibrate vllm test-vllm perf-vllm test-ray audit clean
setup: .venv/core.done

.venv/core.done: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "missing: $(PYTHON) (Python 3.11 or newer); set PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "missing: Python 3.11 or newer, found $$($(PYTHON) --version); set PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "missing: the venv module of $(PYTHON) (on Debian: apt install python3-venv)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing pinned packages into .venv (a few minutes the first time)"
	@$(call torch_first,$(PIP))
	@$(PIP) -e .
	@touch $@

.venv/dev.done: .venv/core.done
	@$(PIP) -e '.[dev]'
	@touch $@

run: setup
	$(BIN)/harness run --domain $(DOMAIN) $(ARGS)

test: .venv/dev.done
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

# An environment of its own: these packages are many, and the rest must work without them.
.venv-interop/done: pyproject.toml constraints.txt
	@test -x .venv-interop/bin/python || $(PYTHON) -m venv .venv-interop
	@$(call torch_first,$(subst $(BIN),$(INTEROP),$(PIP)))
	@$(subst $(BIN),$(INTEROP),$(PIP)) -e '.[evalplus,lm-eval,trackers,dev]'
	@touch $@

test-interop: .venv-interop/done
	OMP_NUM_THREADS=1 $(INTEROP)/python -m pytest tests/test_interop.py tests/test_evalplus_samples.py tests/test_trackers.py $(ARGS)

check: .venv/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

results: setup
	$(BIN)/python benchmarks/publish.py --seeds $(SEEDS)

.venv/perf.done: .venv/core.done
	@$(PIP) -e '.[perf]'
	@touch $@

perf: .venv/perf.done
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.perf.run $(ARGS)

vllm: $(VLLM)/core.done

# Without dependencies, since the file names every one: three that vLLM asks for (torchvision, torchaudio, torchcodec)
# have no CPU builds to go with it, and with others it cannot be imported.
$(VLLM)/core.done: pyproject.toml constraints-vllm.txt
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@echo "installing vLLM's CPU build into $(VLLM) (2 GB, a few minutes the first time)"
	@$(VLLM_PIP) -r constraints-vllm.txt $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") || { echo "vLLM's CPU build needs torch's CPU build: set TORCH_INDEX to PyTorch's own index of them"; exit 1; }
	@$(VLLM_PIP) --no-build-isolation -e .
	@touch $@

# Ray first: it reads its environment when it is imported, and vLLM imports it.
test-vllm: $(VLLM)/core.done
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest tests/test_ray.py tests/test_vllm.py $(ARGS)

perf-vllm: $(VLLM)/core.done
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m benchmarks.perf.run --only vllm $(ARGS)

.venv/ray.done: .venv/dev.done
	@$(PIP) -e '.[ray]'
	@touch $@

test-ray: .venv/ray.done
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_ray.py $(ARGS)

calibrate: .venv/core.done
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.calibration.run $(ARGS)

AUDIT := .venv-audit

$(AUDIT)/done:
	@test -x $(AUDIT)/bin/python || $(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --disable-pip-version-check --quiet pip-audit
	@touch $@

# A package that the database does not know counts as unaudited, never as harmless. PyPI has no builds called +cpu.
audit: $(AUDIT)/done
	@failed=0; for file in constraints.txt constraints-vllm.txt; do \
	    sed 's/^\([^ =]*==[^ +;]*\)+[^ ;]*/\1/; /^--/d' $$file > $(AUDIT)/$$file; \
	    said=$$($(AUDIT)/bin/pip-audit --no-deps --disable-pip --progress-spinner off -r $(AUDIT)/$$file 2>&1) || failed=1; \
	    pinned=$$(grep -c == $(AUDIT)/$$file); unknown=$$(echo "$$said" | grep -c 'could not be audited'); \
	    if [ $$unknown -eq $$pinned ] || echo "$$said" | grep -qi 'ConnectionError\|failed to connect\|timed out'; then \
	        failed=1; echo "$$file: NOT AUDITED. The database of vulnerabilities (pypi.org) cannot be reached from here: of $$pinned packages it told of none"; \
	    else echo "$$said"; echo "$$file: $$((pinned - unknown)) of $$pinned packages audited"; fi; \
	done; exit $$failed

clean:
	rm -rf .venv .venv-interop $(AUDIT) $(VLLM) build dist *.egg-info
