package httpboot

import (
	"fmt"
	"strings"
	"time"
)

// A Renderer turns a plan into the text that a boot program runs. IPXE is one;
// shim and grub, for Secure Boot, will be another.
type Renderer func(Plan) ([]byte, error)

// IPXE renders a plan as an iPXE script. Whatever fails in it, the machine asks
// again instead of falling through to its disk.
func IPXE(p Plan) ([]byte, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	root := "http://" + p.Server.Addr().String()
	if p.Server.Port() != 80 {
		root = "http://" + p.Server.String()
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	again := func(wait time.Duration) {
		line(":again")
		line("sleep %d", int((wait+time.Second-1)/time.Second))
		line("chain --replace %s/ipxe?mac=%s || goto again", root, p.MAC)
	}

	line("#!ipxe")
	switch p.Kind {
	case Service:
		// Under EFI the kernel itself opens the initrds, by the names that its
		// command line gives; under BIOS iPXE hands them over and the words are
		// ignored.
		words := []string{root + "/" + p.Kernel}
		for _, i := range p.Initrds {
			words = append(words, "initrd="+base(i))
		}
		for _, a := range p.Args {
			words = append(words, a.word())
		}
		line("echo Hostler: booting the service system")
		line("imgfree")
		line("kernel %s || goto again", strings.Join(words, " "))
		for _, i := range p.Initrds {
			line("initrd --name %s %s/%s || goto again", base(i), root, i)
		}
		line("boot || goto again")
		again(5 * time.Second)
	case Wait:
		line("echo Hostler: %s", Reasons[p.Reason])
		again(p.Retry)
	case Disk:
		line("echo Hostler: going on to the next boot device")
		line("exit 0")
	case Refuse:
		line("echo Hostler: %s", Reasons[p.Reason])
		line(":stand")
		line("sleep 3600")
		line("goto stand")
	}
	return []byte(b.String()), nil
}

func (a Arg) word() string {
	if a.Value == "" {
		return a.Key
	}
	return a.Key + "=" + a.Value
}
