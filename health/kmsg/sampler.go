package kmsg

import (
	"bytes"
	"time"

	"github.com/hostler-project/hostler/health"
)

// What the sampler says of a line.
type ruling int

const (
	look  ruling = iota // read it
	count               // it is like one that was read: counted
	skip                // there is no room to look at it
)

const (
	extra = 5000 // lines a second beyond the budget that are read because their kind is new
	kinds = 4096 // that are remembered
)

// A sampler keeps reading cheap in a storm. Up to limit lines a second are read one by one. Beyond it a line is only
// compared with the kinds that were read before, by a hash of it without numbers that change; one of a new kind is read.
type sampler struct {
	limit  int
	second int64
	looked int
	kinds  map[uint64]*kind
	last   uint64 // kind of the line that is being read
	now    time.Time
}

// A kind is the last signal that lines of it made, and how many came since that were only counted.
type kind struct {
	signal health.Signal
	more   int64
	means  bool // a signal at all
}

func (s *sampler) judge(text []byte, now time.Time, emit func(health.Signal)) ruling {
	if sec := now.Unix(); sec != s.second {
		s.second, s.looked = sec, 0
		s.flush(emit)
		if len(s.kinds) >= kinds {
			clear(s.kinds)
		}
	}
	s.last, s.now = hash(text), now
	s.looked++
	if s.looked <= s.limit {
		return look
	}
	if k := s.kinds[s.last]; k != nil {
		k.more++
		return count
	}
	if s.looked > s.limit+extra || len(s.kinds) >= kinds {
		return skip
	}
	s.add(&kind{})
	return look
}

// remember keeps what the line that was just read meant.
func (s *sampler) remember(sig health.Signal) {
	if k := s.kinds[s.last]; k != nil {
		k.signal, k.means = sig, true
		return
	}
	if len(s.kinds) < kinds {
		s.add(&kind{signal: sig, means: true})
	}
}

func (s *sampler) add(k *kind) {
	if s.kinds == nil {
		s.kinds = map[uint64]*kind{}
	}
	s.kinds[s.last] = k
}

// flush gives out what was counted.
func (s *sampler) flush(emit func(health.Signal)) {
	for _, k := range s.kinds {
		if k.more > 0 && k.means {
			sig := k.signal
			sig.Seq, sig.At, sig.More = 0, s.now, k.more-1 // itself stands for one
			emit(sig)
		}
		k.more = 0
	}
}

// hash is FNV-1a of a line's first part, without process, channel, addresses and registers: lines with the same hash mean
// the same. Numbers of units (GPC 3, Link 12) stay.
func hash(text []byte) uint64 {
	const limit = 160
	h := uint64(14695981039346656037)
	if len(text) > limit {
		text = text[:limit]
	}
	links := bytes.Contains(text, []byte("ink ")) // registers of a link say how bad it is
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == 'p' && bytes.HasPrefix(text[i:], []byte("pid=")), c == 'n' && bytes.HasPrefix(text[i:], []byte("name=")),
			c == 'C' && bytes.HasPrefix(text[i:], []byte("Ch ")), c == 'c' && bytes.HasPrefix(text[i:], []byte("channel ")):
			for i < len(text) && text[i] != ',' {
				i++
			}
		case c == '0' && !links && i+1 < len(text) && text[i+1] == 'x':
			for i += 2; i < len(text) && isHex(text[i]); i++ {
			}
			i--
		default:
			h = (h ^ uint64(c)) * 1099511628211
		}
	}
	return h
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }
