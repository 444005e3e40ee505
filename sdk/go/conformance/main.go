// The conformance program in Go; what it does is written down in tests/integration/sdk/scenario.py.
package main

import (
	"context"
	"einhorn"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func env(name, otherwise string) string {
	if value, set := os.LookupEnv(name); set {
		return value
	}
	return otherwise
}

func wanted() (net.Listener, error) {
	which := env("SDK_SOCKET", "0")
	if number, err := strconv.Atoi(which); err == nil {
		return einhorn.Listener(number)
	}
	return einhorn.ListenerNamed(which)
}

func via() einhorn.Via {
	return map[string]einhorn.Via{"path": einhorn.Path, "fd": einhorn.Descriptor,
		"notify": einhorn.Notified}[env("SDK_ACK", "auto")]
}

// said turns what a call returned into true, false (nobody to tell) or "error".
func said(err error) any {
	if errors.Is(err, einhorn.ErrNotAWorker) || errors.Is(err, einhorn.ErrNoNotifySocket) {
		return false
	}
	if err != nil {
		log.Print(err)
		return "error"
	}
	return true
}

func message(err error) any {
	if err == nil {
		return nil
	}
	return err.Error()
}

func tell() {
	fd := -1
	_, err := wanted()
	if number, failed := strconv.Atoi(env("SDK_SOCKET", "0")); err == nil && failed == nil {
		fd, _ = einhorn.FD(number)
	} else if err == nil {
		fd = 3
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"worker": einhorn.IsWorker(), "why": message(einhorn.RequireWorker()),
		"index": einhorn.Index(), "count": einhorn.SocketCount(), "fd": fd, "error": message(err),
		"ack":    said(einhorn.Ack(einhorn.Auto)),
		"ping":   said(einhorn.Ping(einhorn.PingInfo{RequestID: "x", Busy: einhorn.Idle})),
		"status": said(einhorn.Status("x")),
	})
}

func waitForFile(file string) {
	os.WriteFile(file+".begun", nil, 0o644)
	for {
		if _, err := os.Stat(file); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func act(path, query string) any {
	switch path {
	case "/ack":
		return said(einhorn.Ack(via()))
	case "/ping":
		return said(einhorn.Ping(einhorn.PingInfo{RequestID: "100%25 \"sure\"\nü", Busy: einhorn.Busy,
			Status: "serving"}))
	case "/status":
		return said(einhorn.Status("warming up"))
	case "/slow":
		waitForFile(query)
	}
	return false
}

func serve(w http.ResponseWriter, r *http.Request) {
	body, _ := json.Marshal(map[string]any{"pid": os.Getpid(), "index": einhorn.Index(),
		"worker": einhorn.IsWorker(), "sent": act(r.URL.Path, r.URL.RawQuery)})
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set("Connection", "close")
	w.Write(body)
}

func main() {
	log.SetFlags(0)
	if len(os.Args) > 1 && os.Args[1] == "tell" {
		tell()
		return
	}
	stop, cancel := einhorn.StopContext(context.Background())
	defer cancel()
	var listener net.Listener
	var err error
	if einhorn.SocketCount() > 0 {
		listener, err = wanted()
	} else if listener, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
		fmt.Println("listening on", strings.TrimPrefix(listener.Addr().String(), "127.0.0.1:"))
	}
	if err != nil {
		log.Fatal(err)
	}
	if env("SDK_ACK_AT", "start") == "start" && said(einhorn.Ack(via())) == "error" {
		os.Exit(1)
	}
	if err := einhorn.Serve(stop, &http.Server{Handler: http.HandlerFunc(serve)}, listener); err != nil {
		log.Fatal(err)
	}
}
