# What a developer runs. `make` alone prints what there is.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 10s
BENCHTIME ?= 1s
DURATION ?= 30m
DATABASE ?= sqlite
NODES ?= 1

# The binary is static: no C, so SQLite is the pure Go one. nomsgpack leaves a
# codec out of gin that nothing here speaks.
TAGS := nomsgpack
LDFLAGS := -s -w -X main.version=$(VERSION)
TOOL := go tool -modfile=tools/go.mod

.PHONY: help build test race lint vet fmt demo bench fuzz torture verify generate ci

help: ## Print what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## Build the static binary bin/carillon
	CGO_ENABLED=0 go build -tags $(TAGS) -trimpath -ldflags '$(LDFLAGS)' -o bin/carillon ./cmd/carillon

test: lint vet race ## Lint, vet, and run all tests with the race detector

race:
	@if command -v "$$(go env CC)" >/dev/null 2>&1; then \
		CGO_ENABLED=1 go test -race ./...; \
	else \
		echo 'NO C COMPILER ($(shell go env CC)): the tests run WITHOUT the race detector; install gcc to have it'; \
		CGO_ENABLED=0 go test ./...; \
	fi

lint: ## Run golangci-lint (the first run builds it, which takes minutes)
	$(TOOL) golangci-lint run ./...

vet: ## Run go vet
	go vet ./...

fmt: ## Format the Go code
	gofmt -l -w .

demo: ## Run the whole of Carillon on this machine, with simulated providers
	go run -tags $(TAGS) ./cmd/carillon demo

bench: ## Run all benchmarks (BENCHTIME=1s)
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...

fuzz: ## Run every fuzz test for a moment (FUZZTIME=10s)
	@for package in $$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...); do \
		for name in $$(go test -list '^Fuzz' "$$package" | grep '^Fuzz' || true); do \
			echo "== $$package $$name"; \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$package"; \
		done; \
	done

torture: ## Kill, cut off and unplug the program and look for what it lost (DURATION=30m DATABASE=sqlite|postgres NODES=1)
	go test ./e2e/torture -run '^(TestTorture|TestPowerCut)$$' -count=1 -v -timeout 0 -duration $(DURATION) -database $(DATABASE) -nodes $(NODES)

verify: ## Fail if a generated file is not what the code says
	go mod tidy -diff
	cd tools && go mod tidy -diff
	go test -count=1 -run '^TestOpenAPIIsCommitted$$' ./api
	go test -count=1 -run '^TestConfigurationPageIsCommitted$$' ./cmd/carillon

generate: ## Write the generated files: docs/openapi.json and docs/configuration.md
	go test -count=1 -run '^TestOpenAPIIsCommitted$$' ./api -update
	go test -count=1 -run '^TestConfigurationPageIsCommitted$$' ./cmd/carillon -update

ci: ## Run what continuous integration runs (as root on Debian: it installs Firefox)
	.ci/run
