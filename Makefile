# `make demo` is the tour, `make test` the proof; `make help` lists the rest.
# Each target first sees to libtorch: at once when it is there, by a download the first time.

CARGO := scripts/libtorch.sh cargo

.PHONY: help demo test bench lint

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 14

demo: ## build, then train a small federation on synthetic data (half a minute after the build)
	@$(CARGO) build --release
	@$(CARGO) run --release --quiet --bin fellrec -- simulate --config demo

test: ## run every test
	@$(CARGO) ci-test

bench: ## measure the speed and memory of a round
	@$(CARGO) bench --workspace

lint: ## check formatting, clippy and documentation
	@$(CARGO) ci-fmt
	@$(CARGO) ci-clippy
	@RUSTDOCFLAGS="-D warnings" $(CARGO) ci-doc
