// Load measures what the command of ghz cannot: gRPC calls that each have a token of their own, and a REST API.
//
//	load grpc -call METHOD -proto FILE -imports FOLDER -requests FILE -tokens FILE [-c N] [-z TIME] [-rps N [-async]] TARGET
//	load http -path PATH -requests FILE [-c N] [-z TIME] SOCKET
//
// The first is ghz as a library: call N sends request N of its file, with token N as `authorization: Bearer`. The second posts the
// lines of its file, in turns, over kept-alive connections to a Unix socket. Both print a report as ghz does with --format json.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bojand/ghz/printer"
	"github.com/bojand/ghz/runner"
	"google.golang.org/grpc/metadata"
)

var kinds = map[string]func(arguments []string) (*runner.Report, error){"grpc": overGrpc, "http": overHttp}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 || kinds[arguments[0]] == nil {
		return fmt.Errorf("say grpc or http first")
	}
	report, err := kinds[arguments[0]](arguments[1:])
	if err != nil {
		return err
	}
	out := printer.ReportPrinter{Report: report, Out: os.Stdout}
	return out.Print("json")
}

func overGrpc(arguments []string) (*runner.Report, error) {
	flags := flag.NewFlagSet("grpc", flag.ExitOnError)
	call := flags.String("call", "", "method, as PACKAGE.SERVICE/METHOD")
	proto := flags.String("proto", "", "file that declares it")
	imports := flags.String("imports", "", "folder of what that file imports")
	requests := flags.String("requests", "", "file with requests, each after its length as a varint")
	tokens := flags.String("tokens", "", "file with as many tokens, one a line")
	inFlight := flags.Uint("c", 1, "calls in flight")
	duration := flags.Duration("z", time.Second, "how long to call")
	perSecond := flags.Uint("rps", 0, "most calls begun a second; 0 for no bound")
	async := flags.Bool("async", false, "begin calls whether or not others have ended")
	flags.Parse(arguments)

	lines, err := readLines(*tokens)
	if err != nil {
		return nil, err
	}
	identities := make([]metadata.MD, len(lines))
	for i, token := range lines {
		identities[i] = metadata.Pairs("authorization", "Bearer "+string(token))
	}
	return runner.Run(*call, flags.Arg(0),
		runner.WithInsecure(true),
		runner.WithProtoFile(*proto, []string{*imports}),
		runner.WithBinaryDataFromFile(*requests),
		runner.WithMetadataProvider(func(call *runner.CallData) (*metadata.MD, error) {
			return &identities[call.RequestNumber%int64(len(identities))], nil
		}),
		runner.WithConcurrency(*inFlight),
		runner.WithRunDuration(*duration),
		runner.WithDurationStopAction("wait"),
		runner.WithRPS(*perSecond),
		runner.WithAsync(*async),
	)
}

func overHttp(arguments []string) (*runner.Report, error) {
	flags := flag.NewFlagSet("http", flag.ExitOnError)
	path := flags.String("path", "/", "path and query to post to")
	requests := flags.String("requests", "", "file with bodies, one a line")
	inFlight := flags.Int("c", 1, "requests in flight")
	duration := flags.Duration("z", time.Second, "how long to post")
	flags.Parse(arguments)

	bodies, err := readLines(*requests)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: *inFlight,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", flags.Arg(0))
		},
	}}
	var number atomic.Int64
	var lock sync.Mutex
	var workers sync.WaitGroup
	var latencies []time.Duration
	statuses := map[string]int{}
	began := time.Now()
	for range *inFlight {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for time.Since(began) < *duration {
				body := bodies[number.Add(1)%int64(len(bodies))]
				sent := time.Now()
				status := post(&client, "http://opa"+*path, body)
				took := time.Since(sent)
				lock.Lock()
				latencies = append(latencies, took)
				statuses[status]++
				lock.Unlock()
			}
		}()
	}
	workers.Wait()
	total := time.Since(began)
	slices.Sort(latencies)
	report := runner.Report{
		Count:          uint64(len(latencies)),
		Total:          total,
		Rps:            float64(len(latencies)) / total.Seconds(),
		StatusCodeDist: statuses,
	}
	for _, percentage := range []int{50, 99} {
		latency := latencies[len(latencies)*percentage/100]
		report.LatencyDistribution = append(report.LatencyDistribution,
			runner.LatencyDistribution{Percentage: percentage, Latency: latency})
	}
	return &report, nil
}

// post sends a body and reads the answer; it gives "OK", or what is wrong.
func post(client *http.Client, url string, body []byte) string {
	response, err := client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err.Error()
	case response.StatusCode != http.StatusOK:
		return response.Status
	case !bytes.Contains(answer, []byte(`"result"`)):
		return "no result"
	}
	return "OK"
}

func readLines(path string) ([][]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return bytes.Split(bytes.TrimSpace(content), []byte("\n")), nil
}
