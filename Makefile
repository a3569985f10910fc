# The same commands that CI runs. `make` alone lints and tests.
.PHONY: all lint format test bench ci

all: lint test

lint:
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format:
	ruff check --fix .
	ruff format .

test:
	pytest

bench:
	python benchmarks/performance table --out build/performance.json

ci:
	bash .ci/run
