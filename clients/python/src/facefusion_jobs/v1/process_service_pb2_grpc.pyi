# Made by `npm run generate`.
import grpc
import grpc.aio

from facefusion_jobs.v1 import process_service_pb2

class ProcessServiceStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    Swap: grpc.UnaryUnaryMultiCallable[process_service_pb2.SwapRequest, process_service_pb2.SwapResponse]
    Enhance: grpc.UnaryUnaryMultiCallable[process_service_pb2.EnhanceRequest, process_service_pb2.EnhanceResponse]

class ProcessServiceAsyncStub:
    Swap: grpc.aio.UnaryUnaryMultiCallable[process_service_pb2.SwapRequest, process_service_pb2.SwapResponse]
    Enhance: grpc.aio.UnaryUnaryMultiCallable[process_service_pb2.EnhanceRequest, process_service_pb2.EnhanceResponse]

class ProcessServiceServicer:
    def Swap(self, request: process_service_pb2.SwapRequest, context: grpc.ServicerContext) -> process_service_pb2.SwapResponse: ...
    def Enhance(self, request: process_service_pb2.EnhanceRequest, context: grpc.ServicerContext) -> process_service_pb2.EnhanceResponse: ...

def add_ProcessServiceServicer_to_server(servicer: ProcessServiceServicer, server: grpc.Server | grpc.aio.Server) -> None: ...
