// An HTTP server in Go that loses no request when it is told to leave.
package main

import (
	"context"
	"einhorn"
	"encoding/json"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"syscall"
)

func hello(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"pid": os.Getpid(), "hello": "from Go"})
}

func listen() (net.Listener, error) {
	if einhorn.SocketCount() > 0 {
		return einhorn.Listener(0)
	}
	return net.Listen("tcp", "127.0.0.1:8080")
}

func main() {
	stop, cancel := einhorn.StopContext(context.Background(), syscall.SIGUSR2, syscall.SIGTERM, os.Interrupt)
	defer cancel()
	listener, err := listen()
	if err != nil {
		log.Fatal(err)
	}
	if err := einhorn.Ack(einhorn.Auto); err != nil && !errors.Is(err, einhorn.ErrNotAWorker) {
		log.Print(err)
	}
	if err := einhorn.Serve(stop, &http.Server{Handler: http.HandlerFunc(hello)}, listener); err != nil {
		log.Fatal(err)
	}
}
