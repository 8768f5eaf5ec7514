// A static program that asks for URLs as Go's own library does: proxy and trust from the environment.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	failed := 0
	for _, url := range os.Args[1:] {
		answer, err := http.Get(url)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			failed = 1
			continue
		}
		io.Copy(os.Stdout, answer.Body)
		answer.Body.Close()
		if answer.StatusCode != 200 {
			failed = 1
		}
	}
	os.Exit(failed)
}
