// WEBHOOK_SECRET=whsec_... PORT=3000 go run receiver.go verify.go
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

func receive(response http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, 1<<20))
	id := request.Header.Get("webhook-id")
	timestamp := request.Header.Get("webhook-timestamp")
	signatures := request.Header.Get("webhook-signature")
	seconds, _ := strconv.ParseInt(timestamp, 10, 64)
	age := time.Since(time.Unix(seconds, 0)).Abs()
	if err != nil || age > 5*time.Minute ||
		!Verified(os.Getenv("WEBHOOK_SECRET"), id, timestamp, signatures, body) {
		fmt.Println("refused", id)
		response.WriteHeader(http.StatusUnauthorized)
		return
	}
	var event struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(body, &event); err != nil {
		log.Println(err)
	}
	// Store the event under its id, and do the work after the answer.
	fmt.Println("accepted", id, event.Type)
	response.WriteHeader(http.StatusNoContent)
}

func main() {
	port := os.Getenv("PORT")
	if port == "" {
		port = "3000"
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, http.HandlerFunc(receive)))
}
