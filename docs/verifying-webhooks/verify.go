// Verifies webhooks by Standard Webhooks, with nothing but Go's own library.
//
//	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 10<<20))
//	err = Verify(r.Header, body, []string{os.Getenv("WEBHOOK_KEY")}, time.Now(), StandardNames)
//
// Give it the body's bytes as they came, and every key that is valid at the moment: `whsec_…` (v1) or `whpk_…` (v1a). Then look whether you have seen the
// `webhook-id` before: deliveries may come more than once.
package main

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const tolerance = 300 * time.Second

// Names are the headers of the event's id, the attempt's time and the signatures.
type Names struct{ ID, Timestamp, Signature string }

var StandardNames = Names{"webhook-id", "webhook-timestamp", "webhook-signature"}

// Verify gives an error if a webhook is not to be trusted.
func Verify(headers http.Header, body []byte, keys []string, now time.Time, names Names) error {
	id, timestamp := headers.Get(names.ID), headers.Get(names.Timestamp)
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if id == "" || err != nil {
		return errors.New("not a webhook")
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > tolerance || age < -tolerance {
		return errors.New("too old, or from the future")
	}
	message := append([]byte(id+"."+timestamp+"."), body...)
	for _, key := range keys {
		kind, encoded, _ := strings.Cut(key, "_")
		keyBytes, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return errors.New("not a key")
		}
		for _, signature := range strings.Fields(headers.Get(names.Signature)) {
			scheme, text, _ := strings.Cut(signature, ",")
			given, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				continue
			}
			switch {
			case scheme == "v1" && kind == "whsec":
				mac := hmac.New(sha256.New, keyBytes)
				mac.Write(message)
				// In constant time.
				if hmac.Equal(given, mac.Sum(nil)) {
					return nil
				}
			case scheme == "v1a" && kind == "whpk" && len(keyBytes) == ed25519.PublicKeySize:
				if ed25519.Verify(keyBytes, message, given) {
					return nil
				}
			}
		}
	}
	return errors.New("no signature is right")
}

// go run verify.go ../webhook-signature-vectors.json
func main() {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	var file struct {
		Vectors []struct {
			Name         string
			Accepted     bool
			Now          int64
			HeaderNames  Names
			Headers      map[string]string
			BodyBase64   []byte
			ReceiverKeys []string
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		panic(err)
	}
	for _, vector := range file.Vectors {
		headers := http.Header{}
		for name, value := range vector.Headers {
			headers.Set(name, value)
		}
		err := Verify(headers, vector.BodyBase64, vector.ReceiverKeys, time.Unix(vector.Now, 0), vector.HeaderNames)
		if (err == nil) != vector.Accepted {
			panic(vector.Name)
		}
	}
	fmt.Println(len(file.Vectors), "vectors")
}
