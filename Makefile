# Every target sets up what it needs in its own .venv; nothing is installed elsewhere.
RECIPE ?= fashion-mini
RUN    ?= runs/$(RECIPE)
BUNDLE ?= bundles/$(RECIPE)
REPORT ?= reports/$(RECIPE)
# What the bundle computes in, as fp32,fp16,int8. Unless SHIPS names another of them, fp32 ships and is what a gate judges.
PRECISION ?= fp32,int8
SHIPS  ?= $(findstring fp32,$(PRECISION))
RESUME ?=
# AutoAttack costs some five core-seconds for each image that survives, so `make verify` runs it on this many.
AA     ?= 24
# int8 brings Square to both precisions: some nine core-seconds for each image that survives. It is shown on this many.
INT8   ?= 12
STUDY  ?= two-core
PYTHON ?= python3
# Where PyTorch comes from, if not from where pip takes all else. PyPI's brings 4 GB of CUDA: without an NVIDIA GPU, it comes from
# PyTorch's own index, if that answers. `make TORCH_INDEX=` leaves the choice to pip.
CPU_INDEX := https://download.pytorch.org/whl/cpu
HAS_GPU := $(wildcard /dev/nvidia* /dev/nvhost* /dev/dxg)
TORCH_INDEX ?= $(if $(HAS_GPU),,$(shell $(BIN)/python -m tools.torch_index $(CPU_INDEX) 2>/dev/null))
TORCH := 'torch>=2.9,<3' 'torchvision>=0.24,<1'
BUILD_ARGS ?=

VENV ?= .venv
BIN  := $(VENV)/bin
# Where nothing is trained, as on a Jetson, the GPU is checked in a light environment that sees the system's TensorRT.
TRAINED    := $(or $(wildcard $(VENV)/main-job),$(filter distill export,$(MAKECMDGOALS)))
GPU_ENV    := $(if $(TRAINED),$(VENV),$(VENV)-gpu)
GPU_READY  := $(if $(TRAINED),main-job,ready)
# Looked for when it is needed: `make export gpu-check` makes it on the way.
GPU_BUNDLE  = $(shell test -e $(BUNDLE)/manifest.json && echo $(BUNDLE) || echo tests/data/tiny-bundle)
# One process a core, one thread each.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --dist loadfile
# What is rebuilt here must not be left half done.
.DELETE_ON_ERROR:
# What an earlier or interrupted run left makes room, and is kept until the next time.
set_aside = @if [ -e $(1) ]; then rm -rf $(1).previous && mv $(1) $(1).previous; fi
.PHONY: help distill export verify cifar10 bench gpu-check teacher study docs rooms test test-all gpu-test check dist aarch64 docker-jetson docker-train smoke
.PHONY: format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  RECIPE=$(RECIPE) RUN=$(RUN) BUNDLE=$(BUNDLE) REPORT=$(REPORT) AA=$(AA) INT8=$(INT8) STUDY=$(STUDY) PYTHON=$(PYTHON)"

distill: $(RUN)/summary.json ## train the student of RECIPE into RUN, unless it is there; RESUME=1 goes on with a stopped run

export: $(BUNDLE)/manifest.json ## export RUN to BUNDLE, unless it is there; PRECISION=fp32,int8

# The gate is judged on the whole set: so few images decide none.
verify: $(BUNDLE)/manifest.json ## attack the exported artifact: REPORT; AutoAttack on AA images; int8 beside fp32 on INT8 images
	$(call set_aside,$(REPORT))
	$(call set_aside,$(REPORT)-autoattack)
	$(call set_aside,$(REPORT)-int8)
	$(BIN)/edgeproof verify $(BUNDLE) --out $(REPORT)
	$(BIN)/edgeproof verify $(BUNDLE) --attacks aa --n $(AA) --no-gate --out $(REPORT)-autoattack
	@if [ ! -e $(BUNDLE)/model.fp32.onnx ] || [ ! -e $(BUNDLE)/model.int8.onnx ]; then \
	  echo '$(BUNDLE) does not hold both fp32 and int8, so nothing shows one beside the other'; \
	else \
	  echo 'int8 beside fp32 on $(INT8) images: Square attacks both too, up to ten seconds an image on two cores' && \
	  $(BIN)/edgeproof verify $(BUNDLE) --precision fp32,int8 --n $(INT8) --no-gate --out $(REPORT)-int8; \
	fi

$(RUN)/summary.json: | $(VENV)/main-job
	$(if $(RESUME),,$(call set_aside,$(RUN)))
	$(BIN)/edgeproof distill $(RECIPE) --out $(RUN) $(if $(RESUME),--resume)

$(BUNDLE)/manifest.json: $(RUN)/summary.json | $(VENV)/main-job
	$(call set_aside,$(BUNDLE))
	$(BIN)/edgeproof export $(RUN) --precision $(PRECISION) $(if $(SHIPS),--ships $(SHIPS)) --out $(BUNDLE)

cifar10: $(VENV)/main-job ## the same for CIFAR-10 at full width, on a GPU (DATA=dir if you have it); SMALL=1 on a CPU
	@! $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || $(MAKE) --no-print-directory $(VENV)/ort-gpu
	@$(BIN)/python -m tools.cifar10 $(if $(SMALL),--small) $(if $(DATA),--data '$(DATA)')

# Both are the module onnxruntime: that for the CPU makes room.
$(VENV)/ort-gpu: $(VENV)/main-job
	$(BIN)/python -m pip uninstall --quiet --yes onnxruntime
	$(BIN)/python -m pip install --quiet 'onnxruntime-gpu>=1.20,<2'
	touch $@

bench: $(BUNDLE)/manifest.json ## measure latency, throughput, power and heat of BUNDLE on this machine, into REPORT
	$(BIN)/edgeproof bench $(BUNDLE) --out $(REPORT)

gpu-check: $(GPU_ENV)/$(GPU_READY) ## compare the engines of this machine's GPU with the CPU, into REPORT-gpu; docs/tensorrt.md
	$(call set_aside,$(REPORT)-gpu)
	@$(GPU_ENV)/bin/python -c 'import ctypes; ctypes.CDLL("libcuda.so.1")' 2>/dev/null \
	  && $(GPU_ENV)/bin/python -m pip install --quiet --editable '.[cuda]' || echo 'cuda-bindings is not installed'
	$(GPU_ENV)/bin/edgeproof gpu-check $(GPU_BUNDLE) --out $(REPORT)-gpu

$(VENV)-gpu/ready: pyproject.toml
	$(PYTHON) -m venv --system-site-packages $(VENV)-gpu
	$(VENV)-gpu/bin/python -m pip install --quiet --editable .
	touch $@

teacher: $(VENV)/main-job ## train the teacher of fashion-mini again (downloads Fashion-MNIST; DATA=dir if you have it)
	$(call set_aside,runs/fashion-teacher)
	$(BIN)/edgeproof teach fashion-teacher --out runs/fashion-teacher --data-root $(or $(DATA),data)
	@echo "to ship it, see pipeline/data/embedded/fashion-mini-teacher.md"

study: $(VENV)/main-job ## run the cells of STUDY that are not finished, and print its table; hours
	$(BIN)/edgeproof study $(STUDY) --out runs/$(notdir $(basename $(STUDY))) --resume

docs: $(VENV)/develop ## build the documentation into site/: open site/index.html
	$(BIN)/zensical build --clean --strict

rooms: $(VENV)/develop ## draw the rooms of the packages from the code, into docs/rooms.svg; docs/architecture.md
	$(BIN)/python -m tools.draw_rooms

test: $(VENV)/develop ## the fast tests
	$(PYTEST)

test-all: $(VENV)/develop ## the slow tests too
	$(PYTEST) -m ""

gpu-test: $(VENV)/develop ## what only a card can tell; needs an NVIDIA GPU, and onnxruntime-gpu or TensorRT in .venv
	$(PYTEST) -n 1 -m gpu tests/gpu

check: $(VENV)/develop ## format, lint, types, import boundaries, Python 3.10 syntax, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 runtime export edgeproof
	$(BIN)/mypy --explicit-package-bases tools
	$(BIN)/lint-imports
	$(PYTEST) -m "not slow or check"

dist: $(VENV)/develop ## build wheel and sdist into dist/, and run the tutorial by the wheel alone, away from here
	$(BIN)/python -m tools.release standing
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m tools.release try dist/*.whl

aarch64: $(VENV)/develop ## the runtime on an emulated aarch64 beside this machine (needs qemu-user-static and mmdebstrap)
	$(PYTEST) -m "" tests/aarch64

# The classic builder alone gives a build a Jetson's NVIDIA runtime.
docker-jetson: export DOCKER_BUILDKIT ?= 0
docker-jetson: ## build the device image, edgeproof-jetson, on a Jetson; BUILD_ARGS="--build-arg NAME=VALUE"; docs/docker.md
	$(call image,jetson)

docker-train: ## build the training image, edgeproof-train
	$(call image,train)

image = docker build --file docker/$(1).Dockerfile --tag edgeproof-$(1) \
	--build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
	--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) $(BUILD_ARGS) .

smoke: ## build and run the images on Debian, amd64 and arm64; root, starts an engine of its own (docker/smoke.sh)
	docker/smoke.sh

format: $(VENV)/develop ## format and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the environment, the caches and the site, no runs, bundles or reports
	rm -rf $(VENV) site .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/python: 
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "edgeproof trains on Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/main-job: pyproject.toml | $(VENV)/python
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) $(TORCH))
	$(BIN)/python -m pip install --quiet --editable '.[train]'
	touch $@

# torchattacks, which tests compare with, pins requests of 2020, which it never imports: it comes without dependencies.
$(VENV)/develop: pyproject.toml | $(VENV)/main-job
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps 'torchattacks>=3.5.1,<4'
	touch $@
