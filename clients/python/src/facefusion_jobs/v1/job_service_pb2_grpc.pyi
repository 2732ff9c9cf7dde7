# Made by `npm run generate`.
from collections.abc import Iterator

import grpc
import grpc.aio

from facefusion_jobs.v1 import job_service_pb2

class JobServiceStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    Submit: grpc.UnaryUnaryMultiCallable[job_service_pb2.SubmitRequest, job_service_pb2.SubmitResponse]
    SubmitBatch: grpc.UnaryUnaryMultiCallable[job_service_pb2.SubmitBatchRequest, job_service_pb2.SubmitBatchResponse]
    GetBatch: grpc.UnaryUnaryMultiCallable[job_service_pb2.GetBatchRequest, job_service_pb2.GetBatchResponse]
    WatchBatch: grpc.UnaryStreamMultiCallable[job_service_pb2.WatchBatchRequest, job_service_pb2.WatchBatchResponse]
    GetBatchResults: grpc.UnaryUnaryMultiCallable[job_service_pb2.GetBatchResultsRequest, job_service_pb2.GetBatchResultsResponse]
    CancelBatch: grpc.UnaryUnaryMultiCallable[job_service_pb2.CancelBatchRequest, job_service_pb2.CancelBatchResponse]
    Validate: grpc.UnaryUnaryMultiCallable[job_service_pb2.ValidateRequest, job_service_pb2.ValidateResponse]
    Get: grpc.UnaryUnaryMultiCallable[job_service_pb2.GetRequest, job_service_pb2.GetResponse]
    GetStatus: grpc.UnaryUnaryMultiCallable[job_service_pb2.GetStatusRequest, job_service_pb2.GetStatusResponse]
    GetResult: grpc.UnaryUnaryMultiCallable[job_service_pb2.GetResultRequest, job_service_pb2.GetResultResponse]
    GetProvenance: grpc.UnaryUnaryMultiCallable[job_service_pb2.GetProvenanceRequest, job_service_pb2.GetProvenanceResponse]
    GetInput: grpc.UnaryStreamMultiCallable[job_service_pb2.GetInputRequest, job_service_pb2.GetInputResponse]
    Watch: grpc.UnaryStreamMultiCallable[job_service_pb2.WatchRequest, job_service_pb2.WatchResponse]
    WatchJobs: grpc.UnaryStreamMultiCallable[job_service_pb2.WatchJobsRequest, job_service_pb2.WatchJobsResponse]
    List: grpc.UnaryUnaryMultiCallable[job_service_pb2.ListRequest, job_service_pb2.ListResponse]
    Cancel: grpc.UnaryUnaryMultiCallable[job_service_pb2.CancelRequest, job_service_pb2.CancelResponse]
    Purge: grpc.UnaryUnaryMultiCallable[job_service_pb2.PurgeRequest, job_service_pb2.PurgeResponse]

class JobServiceAsyncStub:
    Submit: grpc.aio.UnaryUnaryMultiCallable[job_service_pb2.SubmitRequest, job_service_pb2.SubmitResponse]
    SubmitBatch: grpc.aio.UnaryUnaryMultiCallable[job_service_pb2.SubmitBatchRequest, job_service_pb2.SubmitBatchResponse]
    GetBatch: grpc.aio.UnaryUnaryMultiCallable[job_service_pb2.GetBatchRequest, job_service_pb2.GetBatchResponse]
    WatchBatch: grpc.aio.UnaryStreamMultiCallable[job_service_pb2.WatchBatchRequest, job_service_pb2.WatchBatchResponse]
    GetBatchResults: grpc.aio.UnaryUnaryMultiCallable[job_service_pb2.GetBatchResultsRequest, job_service_pb2.GetBatchResultsResponse]
    CancelBatch: grpc.aio.UnaryUnaryMultiCallable[job_service_pb2.CancelBatchRequest, job_service_pb2.CancelBatchResponse]
    Validate: grpc.aio.UnaryUnaryMultiCallable[job_service_pb2.ValidateRequest, job_service_pb2.ValidateResponse]
    Get: grpc.aio.UnaryUnaryMultiCallable[job_service_pb2.GetRequest, job_service_pb2.GetResponse]
    GetStatus: grpc.aio.UnaryUnaryMultiCallable[job_service_pb2.GetStatusRequest, job_service_pb2.GetStatusResponse]
    GetResult: grpc.aio.UnaryUnaryMultiCallable[job_service_pb2.GetResultRequest, job_service_pb2.GetResultResponse]
    GetProvenance: grpc.aio.UnaryUnaryMultiCallable[job_service_pb2.GetProvenanceRequest, job_service_pb2.GetProvenanceResponse]
    GetInput: grpc.aio.UnaryStreamMultiCallable[job_service_pb2.GetInputRequest, job_service_pb2.GetInputResponse]
    Watch: grpc.aio.UnaryStreamMultiCallable[job_service_pb2.WatchRequest, job_service_pb2.WatchResponse]
    WatchJobs: grpc.aio.UnaryStreamMultiCallable[job_service_pb2.WatchJobsRequest, job_service_pb2.WatchJobsResponse]
    List: grpc.aio.UnaryUnaryMultiCallable[job_service_pb2.ListRequest, job_service_pb2.ListResponse]
    Cancel: grpc.aio.UnaryUnaryMultiCallable[job_service_pb2.CancelRequest, job_service_pb2.CancelResponse]
    Purge: grpc.aio.UnaryUnaryMultiCallable[job_service_pb2.PurgeRequest, job_service_pb2.PurgeResponse]

class JobServiceServicer:
    def Submit(self, request: job_service_pb2.SubmitRequest, context: grpc.ServicerContext) -> job_service_pb2.SubmitResponse: ...
    def SubmitBatch(self, request: job_service_pb2.SubmitBatchRequest, context: grpc.ServicerContext) -> job_service_pb2.SubmitBatchResponse: ...
    def GetBatch(self, request: job_service_pb2.GetBatchRequest, context: grpc.ServicerContext) -> job_service_pb2.GetBatchResponse: ...
    def WatchBatch(self, request: job_service_pb2.WatchBatchRequest, context: grpc.ServicerContext) -> Iterator[job_service_pb2.WatchBatchResponse]: ...
    def GetBatchResults(self, request: job_service_pb2.GetBatchResultsRequest, context: grpc.ServicerContext) -> job_service_pb2.GetBatchResultsResponse: ...
    def CancelBatch(self, request: job_service_pb2.CancelBatchRequest, context: grpc.ServicerContext) -> job_service_pb2.CancelBatchResponse: ...
    def Validate(self, request: job_service_pb2.ValidateRequest, context: grpc.ServicerContext) -> job_service_pb2.ValidateResponse: ...
    def Get(self, request: job_service_pb2.GetRequest, context: grpc.ServicerContext) -> job_service_pb2.GetResponse: ...
    def GetStatus(self, request: job_service_pb2.GetStatusRequest, context: grpc.ServicerContext) -> job_service_pb2.GetStatusResponse: ...
    def GetResult(self, request: job_service_pb2.GetResultRequest, context: grpc.ServicerContext) -> job_service_pb2.GetResultResponse: ...
    def GetProvenance(self, request: job_service_pb2.GetProvenanceRequest, context: grpc.ServicerContext) -> job_service_pb2.GetProvenanceResponse: ...
    def GetInput(self, request: job_service_pb2.GetInputRequest, context: grpc.ServicerContext) -> Iterator[job_service_pb2.GetInputResponse]: ...
    def Watch(self, request: job_service_pb2.WatchRequest, context: grpc.ServicerContext) -> Iterator[job_service_pb2.WatchResponse]: ...
    def WatchJobs(self, request: job_service_pb2.WatchJobsRequest, context: grpc.ServicerContext) -> Iterator[job_service_pb2.WatchJobsResponse]: ...
    def List(self, request: job_service_pb2.ListRequest, context: grpc.ServicerContext) -> job_service_pb2.ListResponse: ...
    def Cancel(self, request: job_service_pb2.CancelRequest, context: grpc.ServicerContext) -> job_service_pb2.CancelResponse: ...
    def Purge(self, request: job_service_pb2.PurgeRequest, context: grpc.ServicerContext) -> job_service_pb2.PurgeResponse: ...

def add_JobServiceServicer_to_server(servicer: JobServiceServicer, server: grpc.Server | grpc.aio.Server) -> None: ...
