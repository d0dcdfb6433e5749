# One screen: everything that people and CI run. `make` prints it.
SHELL := /bin/bash
RACK  ?= rack
CACHE := $(or $(HOSTLER_CACHE),/var/cache/hostler)
PROGRAMS := hostlerd hostler hostler-agent hostler-rack
LDFLAGS := -s -w -X github.com/hostler-project/hostler/internal/version.Number=$(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOFLAGS_RELEASE := -trimpath -ldflags "$(LDFLAGS)"
# The one program with cgo. Without lazy binding it would die before main where there is no driver.
NVML_BUILD := CGO_ENABLED=1 CGO_CFLAGS="-O2 -Wno-deprecated-declarations" go build -trimpath -ldflags "$(LDFLAGS) -extldflags=-Wl,-z,lazy"

help: ## show this help
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the programs, static, into bin/; hostler-nvml needs a C compiler
	@CGO_ENABLED=0 go build $(GOFLAGS_RELEASE) -o bin/ $(addprefix ./cmd/,$(PROGRAMS))
	@$(NVML_BUILD) -o bin/ ./cmd/hostler-nvml

deps: ## Debian packages that images and rack need (nothing to do when they are there)
	@images/deps.sh

images: deps build ## boot loaders, service OS, sample tenant image into out/images (cached by inputs)
	@images/assemble-all.sh bin/hostler-agent out/images

rack: images ## the virtual rack: servers that really boot, until Ctrl-C
	@bin/hostler-rack --name $(RACK) demo --images out/images

rack-test: images ## the same without a person: the whole story, asserted; out/stages.json
	@bin/hostler-rack story --images out/images --stages out/stages.json

bench-handoff: images ## hand-over by kexec against reboot, 3 each, in turn (about 6 minutes)
	@bin/hostler-rack bench-handoff --images out/images

unit: ## go vet and all Go tests: no root, minutes
	go vet ./... && go vet -tags rack ./... && go test ./...

crash-matrix: ## every edge of the lifecycle, killed and broken at every moment: the table covered/required
	@set -o pipefail; go test ./provisioner -run 'CrashMatrix' -count=1 -v | grep -v '^=== \|--- PASS'

FUZZTIME ?= 30s
fuzz: ## every parser against 30 s of nonsense (FUZZTIME=5m for longer, FUZZ=name for some); about 8 minutes
	@go run ./internal/fuzz $(FUZZTIME) '$(FUZZ)'

GPU_CHECK_SECONDS ?= 60
gpu-check: ## the agent's GPU checks on this machine's NVIDIA GPUs: what answers, what it costs; STANDIN=H100:8 for stand-ins
	@$(NVML_BUILD) -o bin/ ./cmd/hostler-nvml
	@go run ./internal/gpucheck bin/hostler-nvml $(GPU_CHECK_SECONDS) $(if $(STANDIN),--standin $(STANDIN))

SIM = @set -o pipefail; go test ./internal/sim -run 'Replay|Broke|Histories|Calm|Fleet' -count=1 -timeout 60m -v | grep -v '^=== '
sim: ## the control plane simulated under faults: 200,000 transitions, seeds played twice, seeds that once broke, 500 nodes lost at once; 3 minutes
	$(subst go test,GOGC=800 SIM_TOTAL=200000 SIM_EACH=400 SIM_REPLAYS=100 go test,$(SIM))

sim-long: ## the same with 2,000,000 transitions, from other seeds (SIM_FROM=N)
	$(subst go test,GOGC=800 SIM_TOTAL=2000000 SIM_EACH=400 SIM_REPLAYS=100 SIM_FROM=$(or $(SIM_FROM),10000000) go test,$(SIM))

wire: deps ## tests on network namespaces, QEMU and ipmi_sim: root
	HOSTLER_RACK=1 go test -tags rack -p 1 -count=1 -timeout 30m ./provisioner/... ./imaging/... ./cmd/hostler-agent/... ./internal/rack/...

faults: ## real hostlerd and etcd processes, killed, frozen, cut off: claims stay right (root, minutes)
	go vet -tags faults ./internal/faults && go test -tags faults -v -count=1 -timeout 20m ./internal/faults

mutants: ## flip every comparison of the gate to ready and of the claim transaction: do the tests notice?
	@HOSTLER_MUTANTS=all go test -count=1 -timeout 40m -v -run TestMutants ./internal/mutants | grep -v -e '^=== ' -e '^--- PASS' -e '^PASS'

soak: ## 200 kills in 30 minutes, nothing may grow; SOAK=5 is shorter
	SOAK=$(or $(SOAK),30) go test -tags faults -v -count=1 -timeout 60m -run TestSoak ./internal/faults

test: deps unit sim wire rack-test ## everything CI runs

docs: ## the parts of docs/ that come from the code
	go test ./inventory/lifecycle -run Docs -update && go test ./inventory/api -run OpenAPI -update

.PHONY: help build deps gpu-check images rack rack-test bench-handoff unit sim sim-long crash-matrix wire faults soak test docs fuzz mutants
.DEFAULT_GOAL := help
