# Everything runs in .venv, which is made on the first use. Needs Python 3.11 or newer, with venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-triton lint bench

demo: .venv/installed
	$(BIN)/noiseproof demo

test: .venv/test-extra
	$(BIN)/pytest -n 2

# the CUDA kernels under Triton's interpreter; apart, because Triton is large where it does not come with PyTorch
test-triton: .venv/test-extra
	$(BIN)/python -m pip install --quiet -c constraints.txt triton
	$(BIN)/pytest tests/neurons/test_triton.py

lint: .venv/test-extra
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: .venv/test-extra
	$(BIN)/python benchmarks/weight_adversary.py
	$(BIN)/python benchmarks/methods.py
	$(BIN)/python benchmarks/monte_carlo.py
	$(BIN)/python benchmarks/start_up.py
	$(BIN)/python benchmarks/neurons.py
	$(BIN)/python benchmarks/recurrent.py
	$(BIN)/python benchmarks/networks.py
	$(BIN)/python benchmarks/pcm.py
	$(BIN)/python benchmarks/attacks.py
	$(BIN)/python benchmarks/input_methods.py
	$(BIN)/python benchmarks/certificates.py

.venv/installed: pyproject.toml constraints.txt hatch_build.py $(wildcard src/noiseproof/neurons/kernels/c/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

.venv/test-extra: .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	# without what they ask for: torchvision, and other versions of torch; what they do need is in the extra `test`
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt spikingjelly norse sinabs torchattacks pyautoattack
	# not there for every machine and Python; its comparisons are skipped without it
	-$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt aihwkit
	touch $@
