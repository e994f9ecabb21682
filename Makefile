# Everything runs on the Node that package-lock.json pins (node_modules/.bin/node); `npm run` finds it by itself.
NPM_RUN := npm run --silent
INSTALLED := node_modules/.package-lock.json

.DEFAULT_GOAL := help
.PHONY: help run test test-fast lint gen model demo bench soak release clean

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(INSTALLED) ## start engine, policy service and gateway; Ctrl-C stops them; MODEL=english takes the larger model
	@$(NPM_RUN) start$(if $(MODEL), -- --model '$(MODEL)')

test: $(INSTALLED) ## every test; a real vLLM on CPU is among them, which needs 6 GB
	@$(NPM_RUN) test

test-fast: $(INSTALLED) ## without vLLM and without whole processes
	@$(NPM_RUN) test:fast

lint: $(INSTALLED) ## types, format, lint, generated code
	@$(NPM_RUN) lint

gen: $(INSTALLED) ## generate the protocol's code, kernels, dashboards and tables
	@$(NPM_RUN) gen

model: $(INSTALLED) ## train crystal-mini again and measure it, about 95 minutes on one core
	@model/train.sh

demo: $(INSTALLED) ## compare cache policies on a few programs
	@$(NPM_RUN) demo

bench: $(INSTALLED) ## engine and policy service speed, and the table of policies
	@$(NPM_RUN) bench:engine
	@$(NPM_RUN) bench:policy
	@$(NPM_RUN) eval

soak: $(INSTALLED) ## 10 minutes of mixed traffic with aborts and faults through the gateway
	@$(NPM_RUN) soak

release: $(INSTALLED) ## npm package, Python wheel and images, into dist/
	@$(NPM_RUN) release

clean: ## remove what was installed and made
	rm -rf node_modules lib dist
	find . -name __pycache__ -o -name .pytest_cache -o -name .mypy_cache -o -name .ruff_cache | xargs rm -rf

$(INSTALLED): package-lock.json
	@scripts/check-node.sh
	npm ci --loglevel=error
	@touch $@
