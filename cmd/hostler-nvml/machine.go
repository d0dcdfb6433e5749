//go:build cgo

package main

import (
	driver "github.com/NVIDIA/go-nvml/pkg/nvml"

	wire "github.com/hostler-project/hostler/health/nvml"
)

var (
	confidentialSymbols = []string{"nvmlSystemGetConfComputeState"}
	readySymbols        = []string{"nvmlSystemGetConfComputeGpusReadyState"}
	cudaSymbols         = []string{"nvmlSystemGetCudaDriverVersion_v2"}
	p2pSymbols          = []string{"nvmlDeviceGetP2PStatus"}
	ancestorSymbols     = []string{"nvmlDeviceGetTopologyCommonAncestor"}
)

// system reads what belongs to the machine and not to one GPU.
func (l *lib) system() wire.Values {
	v := wire.Values{"cc.feature": wire.NotSupported(), "cc.environment": wire.NotSupported(), "cc.ready": wire.NotSupported(), "cuda": wire.NotSupported()}
	if l.hasAll(confidentialSymbols) {
		var s driver.ConfComputeSystemState
		ret := l.call("nvmlSystemGetConfComputeState", "", func() (ret driver.Return) {
			s, ret = l.nvml.SystemGetConfComputeState()
			return ret
		})
		v["cc.feature"], v["cc.environment"] = value(uint64(s.CcFeature), ret), value(uint64(s.Environment), ret)
	}
	if l.hasAll(readySymbols) {
		var n uint32
		ret := l.call("nvmlSystemGetConfComputeGpusReadyState", "", func() (ret driver.Return) {
			n, ret = l.nvml.SystemGetConfComputeGpusReadyState()
			return ret
		})
		v["cc.ready"] = value(uint64(n), ret)
	}
	if l.hasAll(cudaSymbols) {
		var n int
		ret := l.call("nvmlSystemGetCudaDriverVersion_v2", "", func() (ret driver.Return) {
			n, ret = l.nvml.SystemGetCudaDriverVersion_v2()
			return ret
		})
		v["cuda"] = value(uint64(n), ret)
	}
	return v
}

// peers reads what each pair of GPUs can do with each other.
func (l *lib) peers() map[string]wire.Value {
	all := map[string]wire.Value{}
	for _, a := range l.gpus {
		for _, b := range l.gpus {
			if a == b || !a.open || !b.open {
				continue
			}
			all[wire.PeerKey("read", a.Bus, b.Bus)] = l.p2p(a, b, driver.P2P_CAPS_INDEX_READ)
			all[wire.PeerKey("nvlink", a.Bus, b.Bus)] = l.p2p(a, b, driver.P2P_CAPS_INDEX_NVLINK)
			if a.Bus < b.Bus { // the same both ways
				all[wire.PeerKey("ancestor", a.Bus, b.Bus)] = l.ancestor(a, b)
			}
		}
	}
	return all
}

func (l *lib) p2p(a, b *gpu, what driver.GpuP2PCapsIndex) wire.Value {
	if !l.hasAll(p2pSymbols) {
		return wire.NotSupported()
	}
	var status driver.GpuP2PStatus
	ret := l.call("nvmlDeviceGetP2PStatus", a.Bus, func() (ret driver.Return) {
		status, ret = l.nvml.DeviceGetP2PStatus(a.dev, b.dev, what)
		return ret
	})
	return value(uint64(status), ret)
}

func (l *lib) ancestor(a, b *gpu) wire.Value {
	if !l.hasAll(ancestorSymbols) {
		return wire.NotSupported()
	}
	var level driver.GpuTopologyLevel
	ret := l.call("nvmlDeviceGetTopologyCommonAncestor", a.Bus, func() (ret driver.Return) {
		level, ret = l.nvml.DeviceGetTopologyCommonAncestor(a.dev, b.dev)
		return ret
	})
	return value(uint64(level), ret)
}
