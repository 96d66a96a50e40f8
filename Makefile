# `make demo` is the tour, `make test` the proof; `make help` lists the rest.
# Each target first sees to libtorch: at once when it is there, by a download the first time.

CARGO := scripts/libtorch.sh cargo

.PHONY: help demo demo-nodes test chaos bench lint

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 14

demo: ## build, then train a small federation on synthetic data (half a minute after the build)
	@$(CARGO) build --release --no-default-features
	@$(CARGO) run --release --quiet --no-default-features --bin fellrec -- simulate --config demo

demo-nodes: ## the same federation as ten processes over a broker with mutual TLS (two minutes more to build)
	@$(CARGO) build --release
	@broker="$$(scripts/nats.sh)" && $(CARGO) run --release --quiet --bin fellrec -- \
		up --config demo --clients 5 --shards 2 --nats-server "$$broker" --out "runs/nodes-$$(date +%Y%m%d-%H%M%S)"

test: ## run every test
	@broker="$$(scripts/nats.sh)" && FELLREC_NATS_SERVER="$$broker" $(CARGO) ci-test

chaos: ## kill members of a federation over nodes for some minutes; ends in a table
	@$(CARGO) build --release
	@broker="$$(scripts/nats.sh)" && FELLREC_NATS_SERVER="$$broker" scripts/chaos.sh

bench: ## measure the speed and memory of a round
	@$(CARGO) bench --workspace

lint: ## check formatting, clippy and documentation
	@$(CARGO) ci-fmt
	@$(CARGO) ci-clippy
	@RUSTDOCFLAGS="-D warnings" $(CARGO) ci-doc
