// go mod init receiver && go get github.com/standard-webhooks/standard-webhooks/libraries
// WEBHOOK_SECRET=whsec_... PORT=3000 go run receiver.go
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

func main() {
	webhook, err := standardwebhooks.NewWebhook(os.Getenv("WEBHOOK_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "3000"
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		id := request.Header.Get("webhook-id")
		body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, 1<<20))
		if err == nil {
			err = webhook.Verify(body, request.Header)
		}
		if err != nil {
			fmt.Println("refused", id, err)
			response.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Println("accepted", id)
		response.WriteHeader(http.StatusNoContent)
	})))
}
