package bmc

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestPowerFollowsOnARealController(t *testing.T) {
	s := startSim(t)
	c := s.open(quick())
	for _, step := range []struct {
		want Power
		file string
	}{{On, "1"}, {On, "1"}, {Off, "0"}, {Off, "0"}, {On, "1"}} {
		if err := c.SetPower(t.Context(), step.want); err != nil {
			t.Fatalf("SetPower(%s): %v", step.want, err)
		}
		if got := s.get("power"); got != step.file {
			t.Fatalf("after SetPower(%s) the machine's power is %s", step.want, got)
		}
		if got, err := c.Power(t.Context()); got != step.want || err != nil {
			t.Fatalf("Power() = %s, %v; want %s", got, err, step.want)
		}
	}
	if n := s.calls("set power 1"); n != 2 {
		t.Errorf("a machine that was on was switched on again: %d orders for 2 changes", n)
	}
}

func TestCipherSuite17(t *testing.T) {
	s := startSim(t)
	target := s.target()
	target.CipherSuite = 17
	c, err := open(t.Context(), target, nil, quick(), &logins{now: time.Now})
	var e *Error
	if errors.As(err, &e) && e.Hint == otherSuite.hint {
		return // this ipmi_sim was built without SHA-256; it says so at once
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if got, err := c.Power(t.Context()); got != Off || err != nil {
		t.Fatalf("Power() = %s, %v", got, err)
	}
}
