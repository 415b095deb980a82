func main() {
	id := {{id}}
	timestamp := {{timestamp}} // refuse one that is more than 300 s off
	signatures := {{signature}}
	body := {{body}} // raw, before it is parsed
	fmt.Println("verified:", Verified(os.Getenv("WEBHOOK_SECRET"), id, timestamp, signatures, body))
}
