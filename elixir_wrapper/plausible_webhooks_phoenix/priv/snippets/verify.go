package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
)

func main() {
	id := {{id}}
	timestamp := {{timestamp}} // refuse one that is more than 300 s off
	signatures := {{signature}}
	body := {{body}} // raw, before it is parsed

	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(os.Getenv("WEBHOOK_SECRET"), "whsec_"))
	if err != nil {
		panic(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	expected := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	verified := false
	for _, signature := range strings.Split(signatures, " ") {
		verified = hmac.Equal([]byte(signature), []byte(expected)) || verified
	}
	fmt.Println("verified:", verified)
}
