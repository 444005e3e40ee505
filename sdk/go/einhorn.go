// Package einhorn is what a worker of Einhorn needs: its sockets, saying that it is ready, leaving
// when asked to.
//
//	ctx, cancel := einhorn.StopContext(context.Background())   // SIGUSR2 means: finish and leave
//	defer cancel()
//	listener, err := einhorn.ListenerNamed("web")              // or einhorn.Listener(0)
//	...
//	einhorn.Ack(einhorn.Auto)
//	err = einhorn.Serve(ctx, &http.Server{Handler: handler}, listener)
//
// Outside Einhorn IsWorker is false, and Ack, Ping, Status and Notify return ErrNotAWorker or
// ErrNoNotifySocket and tell nobody, so that a program can be started by hand.
package einhorn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

// Version of this package.
const Version = "0.1.0"

// ErrNotAWorker is wrapped by what is returned where Einhorn does not run this process.
var ErrNotAWorker = errors.New("not a worker of Einhorn")

// ErrNoNotifySocket is returned by Notify and Status where there is no NOTIFY_SOCKET.
var ErrNoNotifySocket = errors.New("NOTIFY_SOCKET is not set")

// number reads a number of the environment; -1 if it is not there or is none.
func number(variable string) int {
	n, err := strconv.ParseUint(os.Getenv(variable), 10, 31)
	if err != nil {
		return -1
	}
	return int(n)
}

// RequireWorker returns nil if Einhorn runs this process (EINHORN_MASTER_PID names its parent),
// and otherwise an error that says why it does not think so.
func RequireWorker() error {
	master, set := os.LookupEnv("EINHORN_MASTER_PID")
	if !set {
		return fmt.Errorf("%w: EINHORN_MASTER_PID is not set", ErrNotAWorker)
	}
	if number("EINHORN_MASTER_PID") != os.Getppid() {
		return fmt.Errorf("%w: EINHORN_MASTER_PID is %s, but the parent is %d", ErrNotAWorker,
			master, os.Getppid())
	}
	return nil
}

// IsWorker says whether Einhorn runs this process.
func IsWorker() bool { return RequireWorker() == nil }

// Index is this worker's index, unique among living workers of the pool; -1 outside Einhorn.
func Index() int { return number("EINHORN_CHILD_INDEX") }

// SocketCount says how many sockets were handed in, by Einhorn's -b or by systemd.
func SocketCount() int {
	if count := number("EINHORN_FD_COUNT"); count >= 0 {
		return count
	}
	// systemd's variables count only for the process they were made for.
	if count := number("LISTEN_FDS"); count > 0 && number("LISTEN_PID") == os.Getpid() {
		return count
	}
	return 0
}

// Names returns the sockets' names (-b ADDR,name=NAME) in the order of -b; "unknown" where none was
// given.
func Names() []string {
	given := os.Getenv("LISTEN_FDNAMES")
	if given == "" {
		return nil
	}
	names := strings.Split(given, ":")
	if count := SocketCount(); count < len(names) {
		return names[:count]
	}
	return names
}

// FD returns the descriptor of a socket by its number, from 0 in the order of -b. Programs that this
// one starts do not inherit it.
func FD(which int) (int, error) {
	count := SocketCount()
	if which < 0 || which >= count {
		return -1, fmt.Errorf("there is no socket %d: %d were handed in (einhorn -b)", which, count)
	}
	variable := fmt.Sprintf("EINHORN_FD_%d", which)
	fd := number(variable)
	if number("EINHORN_FD_COUNT") < 0 {
		fd = 3 + which
	}
	if fd < 0 {
		return -1, fmt.Errorf("%s is not set, or is no number", variable)
	}
	if _, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE); err != nil {
		return -1, fmt.Errorf("%s: descriptor %d is no open socket: %w", variable, fd, err)
	}
	syscall.CloseOnExec(fd)
	return fd, nil
}

// numberOf returns the number of the socket with this name.
func numberOf(name string) (int, error) {
	for i, candidate := range Names() {
		if candidate == name {
			return i, nil
		}
	}
	known := "none"
	if names := Names(); len(names) > 0 {
		known = strings.Join(names, ":")
	}
	return -1, fmt.Errorf("there is no socket named %q; there are: %s", name, known)
}

// file makes a file of a copy of the socket's descriptor: what a net.Listener copies in turn.
func file(which int) (*os.File, error) {
	fd, err := FD(which)
	if err != nil {
		return nil, err
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	copied, err := syscall.Dup(fd)
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(copied)
	return os.NewFile(uintptr(copied), fmt.Sprintf("einhorn-%d", which)), nil
}

// Listener returns a socket by its number, from 0 in the order of -b.
func Listener(which int) (net.Listener, error) {
	f, err := file(which)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	listener, err := net.FileListener(f)
	if unix, ok := listener.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(false) // the file belongs to Einhorn
	}
	return listener, err
}

// ListenerNamed returns a socket by its name: -b ADDR,name=NAME.
func ListenerNamed(name string) (net.Listener, error) {
	which, err := numberOf(name)
	if err != nil {
		return nil, err
	}
	return Listener(which)
}

// PacketConn is as Listener, for UDP: -b udp:ADDR.
func PacketConn(which int) (net.PacketConn, error) {
	f, err := file(which)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FilePacketConn(f)
}

// Via is how an ACK travels.
type Via int

const (
	Auto       Via = iota // the command socket: by its path or, if that can't be reached, by descriptor
	Path                  // the command socket by EINHORN_SOCK_PATH
	Descriptor            // by EINHORN_SOCK_FD (einhorn -g): good for one message
	Notified              // READY=1 to NOTIFY_SOCKET: einhorn -m notify; the others are for -m manual
)

func sendByPath(line []byte) error {
	path := os.Getenv("EINHORN_SOCK_PATH")
	if path == "" {
		return errors.New("EINHORN_SOCK_PATH is not set")
	}
	connection, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer connection.Close()
	_, err = connection.Write(line)
	return err
}

func sendByDescriptor(line []byte) error {
	fd := number("EINHORN_SOCK_FD")
	if fd < 0 {
		return errors.New("EINHORN_SOCK_FD is not set (einhorn -g sets it)")
	}
	_, err := syscall.Write(fd, line)
	return os.NewSyscallError("write to EINHORN_SOCK_FD", err)
}

func send(via Via, message map[string]any) error {
	line, err := json.Marshal(message)
	if err != nil {
		return err
	}
	// A `%` would be taken for an escape of the line, so it becomes one of JSON.
	line = append([]byte(strings.ReplaceAll(string(line), "%", `\u0025`)), '\n')
	if via == Descriptor {
		return sendByDescriptor(line)
	}
	err = sendByPath(line)
	if err != nil && via == Auto && number("EINHORN_SOCK_FD") >= 0 {
		return sendByDescriptor(line)
	}
	return err
}

// Ack says "I am ready". The error wraps ErrNotAWorker if this is none; nothing is said then.
func Ack(via Via) error {
	if err := RequireWorker(); err != nil {
		return err
	}
	if via == Notified {
		return Notify("READY=1")
	}
	return send(via, map[string]any{"command": "worker:ack", "pid": os.Getpid()})
}

// PingInfo is what a ping tells; zero values are left out.
type PingInfo struct {
	RequestID any    // the request this worker is at: a text, a number, anything that is JSON
	Busy      *bool  // see Busy and Idle
	Status    string // a line about this worker
}

func pointer(value bool) *bool { return &value }

// Busy and Idle are for PingInfo.
var (
	Busy = pointer(true)
	Idle = pointer(false)
)

// Ping says "I am alive", and what this worker is at. The error wraps ErrNotAWorker if this is none.
func Ping(info PingInfo) error {
	if err := RequireWorker(); err != nil {
		return err
	}
	message := map[string]any{"command": "worker:ping", "pid": os.Getpid()}
	if info.RequestID != nil {
		message["request_id"] = info.RequestID
	}
	if info.Busy != nil {
		message["busy"] = *info.Busy
	}
	if info.Status != "" {
		message["status"] = info.Status
	}
	return send(Auto, message)
}

// Notify sends assignments as sd_notify(3) does: "READY=1", "WATCHDOG=1".
func Notify(assignments string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return ErrNoNotifySocket
	}
	connection, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer connection.Close()
	_, err = connection.Write([]byte(assignments))
	return err
}

// Status is a line about this worker, shown by `einhornsh -e status`; by Notify.
func Status(text string) error {
	return Notify("STATUS=" + strings.ReplaceAll(text, "\n", " "))
}

// StopContext returns a context that is done when one of these signals (SIGUSR2 if none is named)
// asks for a graceful stop. The function that comes with it lets go of the signals.
func StopContext(parent context.Context, signals ...os.Signal) (context.Context, context.CancelFunc) {
	if len(signals) == 0 {
		signals = []os.Signal{syscall.SIGUSR2}
	}
	return signal.NotifyContext(parent, signals...)
}

// Serve serves until the context is done, then finishes what was accepted, and returns nil. With
// http.Server.Shutdown alone a connection can be lost that was accepted at that very moment.
func Serve(stop context.Context, server *http.Server, listener net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-stop.Done():
	}
	server.SetKeepAlivesEnabled(false)
	listener.Close()
	<-served // from here on every accepted connection is known to the server
	return server.Shutdown(context.Background())
}
