// Submits a job and shows its events as JSON, with no generated code: messages are made from what the service says of itself (reflection).
//
//	cd examples/go && go run . demo/eileen_collins.jpg demo/grace_hopper.jpg
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"github.com/fullstorydev/grpcurl"
	"github.com/jhump/protoreflect/grpcreflect"
	"google.golang.org/grpc"
)

const service = "facefusion.jobs.v1.JobService/"

type caller struct {
	channel *grpc.ClientConn
	source  grpcurl.DescriptorSource
	headers []string
}

// call writes each answer of the method to out, as JSON.
func (c caller) call(ctx context.Context, method string, request any, out io.Writer) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	parser, format, err := grpcurl.RequestParserAndFormatter(grpcurl.FormatJSON, c.source, bytes.NewReader(body), grpcurl.FormatOptions{})
	if err != nil {
		return err
	}
	handler := &grpcurl.DefaultEventHandler{Out: out, Formatter: format}
	if err := grpcurl.InvokeRPC(ctx, c.source, c.channel, service+method, c.headers, handler, parser.Next); err != nil {
		return err
	}
	return handler.Status.Err()
}

func run(ctx context.Context, address, face, target string) error {
	channel, err := grpcurl.BlockingDial(ctx, "tcp", address, nil)
	if err != nil {
		return err
	}
	defer channel.Close()
	reflection := grpcreflect.NewClientAuto(ctx, channel)
	defer reflection.Reset()
	c := caller{channel: channel, source: grpcurl.DescriptorSourceFromServer(ctx, reflection)}
	if token := os.Getenv("FFJOBS_TOKEN"); token != "" {
		c.headers = []string{"authorization: Bearer " + token}
	}

	job := map[string]any{"source_images": []string{face}, "target_image": target}
	var answer bytes.Buffer
	if err := c.call(ctx, "Submit", map[string]any{"job": job}, &answer); err != nil {
		return err
	}
	var submitted struct {
		Job struct {
			JobID string `json:"jobId"`
		} `json:"job"`
	}
	if err := json.Unmarshal(answer.Bytes(), &submitted); err != nil {
		return err
	}
	request := map[string]any{"job_id": submitted.Job.JobID}
	if err := c.call(ctx, "Watch", request, os.Stdout); err != nil {
		return err
	}
	return c.call(ctx, "GetResult", request, os.Stdout)
}

func main() {
	log.SetFlags(0)
	address := strings.TrimPrefix(os.Getenv("FFJOBS_SERVER"), "http://")
	if address == "" {
		address = "127.0.0.1:8000"
	}
	if len(os.Args) != 3 {
		log.Fatal(errors.New("usage: go run . FACE TARGET, both as the service knows them"))
	}
	if err := run(context.Background(), address, os.Args[1], os.Args[2]); err != nil {
		log.Fatal(fmt.Errorf("this did not work: %w", err))
	}
}
