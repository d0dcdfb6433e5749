package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An ipmi sends one command to the BMC in band and returns the answer without its completion code.
type ipmi func(netfn, cmd byte, data ...byte) ([]byte, error)

// The watchdog commands of IPMI 2.0, sections 27.6 and 27.7: network function App.
const (
	ipmiApp        = 0x06
	setWatchdog    = 0x24
	getWatchdog    = 0x25
	watchdogRuns   = 1 << 6 // of the first byte of Get Watchdog Timer
	watchdogForSMS = 4      // timer use: system management software
)

// disarm stops the BMC's watchdog if it runs, and reads back that it stands: it would reset the tenant's machine.
func disarm(send ipmi) error {
	for try := range 2 {
		b, err := send(ipmiApp, getWatchdog)
		if err != nil {
			return fmt.Errorf("ask the BMC for its watchdog: %w", err)
		}
		if len(b) < 8 {
			return fmt.Errorf("ask the BMC for its watchdog: an answer of %d bytes", len(b))
		}
		if b[0]&watchdogRuns == 0 {
			return nil
		}
		if try == 0 { // no action, no time left, stop
			if _, err := send(ipmiApp, setWatchdog, watchdogForSMS, 0, 0, 0, 0, 0); err != nil {
				return fmt.Errorf("stop the BMC's watchdog: %w", err)
			}
		}
	}
	return errors.New("the BMC's watchdog runs on after it was stopped")
}

// The kernel's IPMI interface (include/uapi/linux/ipmi.h), as 64-bit machines lay it out.
type (
	ipmiMsg struct {
		netfn, cmd byte
		dataLen    uint16
		data       uintptr
	}
	ipmiReq struct {
		addr    uintptr
		addrLen uint32
		msgID   int64
		msg     ipmiMsg
	}
	ipmiRecv struct {
		kind    int32
		addr    uintptr
		addrLen uint32
		msgID   int64
		msg     ipmiMsg
	}
	ipmiAddr struct {
		kind    int32
		channel int16
		lun     byte
		data    [32]byte // an answer's address may be longer than ours
	}
)

const (
	ipmiSend    = 0x8028690d // IPMICTL_SEND_COMMAND
	ipmiReceive = 0xc030690b // IPMICTL_RECEIVE_MSG_TRUNC
	ipmiSystem  = 0x0c       // IPMI_SYSTEM_INTERFACE_ADDR_TYPE
	ipmiBMC     = 0x0f       // IPMI_BMC_CHANNEL
	ipmiAnswer  = 5 * time.Second
)

// inBand sends commands through a device file such as /dev/ipmi0.
func inBand(ctx context.Context, device string) ipmi {
	return func(netfn, cmd byte, data ...byte) ([]byte, error) {
		fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: device, Err: err}
		}
		defer unix.Close(fd)
		var pin runtime.Pinner
		defer pin.Unpin()
		addr := &ipmiAddr{kind: ipmiSystem, channel: ipmiBMC}
		buf := make([]byte, 272) // IPMI_MAX_MSG_LENGTH
		copy(buf, data)
		pin.Pin(addr)
		pin.Pin(&buf[0])
		at := ipmiMsg{netfn: netfn, cmd: cmd, dataLen: uint16(len(data)), data: uintptr(unsafe.Pointer(&buf[0]))}
		req := ipmiReq{addr: uintptr(unsafe.Pointer(addr)), addrLen: 8, msgID: 1, msg: at}
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ipmiSend, uintptr(unsafe.Pointer(&req))); e != 0 {
			return nil, fmt.Errorf("%s: send command 0x%02x: %w", device, cmd, e)
		}
		for begin := time.Now(); ; {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
			if n > 0 {
				break
			}
			if err != nil && !errors.Is(err, unix.EINTR) || time.Since(begin) > ipmiAnswer || ctx.Err() != nil {
				return nil, fmt.Errorf("%s: no answer to command 0x%02x in %v", device, cmd, ipmiAnswer)
			}
		}
		at.dataLen = uint16(len(buf))
		recv := ipmiRecv{addr: uintptr(unsafe.Pointer(addr)), addrLen: uint32(unsafe.Sizeof(*addr)), msg: at}
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ipmiReceive, uintptr(unsafe.Pointer(&recv))); e != 0 {
			return nil, fmt.Errorf("%s: read the answer to command 0x%02x: %w", device, cmd, e)
		}
		b := buf[:recv.msg.dataLen]
		if len(b) == 0 || b[0] != 0 {
			return nil, fmt.Errorf("%s: command 0x%02x: completion code %x", device, cmd, b)
		}
		return b[1:], nil
	}
}
