# Made by `npm run generate`.
from collections.abc import Iterator

import grpc
import grpc.aio

from facefusion_jobs.v1 import upload_service_pb2

class UploadServiceStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    Upload: grpc.StreamUnaryMultiCallable[upload_service_pb2.UploadRequest, upload_service_pb2.UploadResponse]

class UploadServiceAsyncStub:
    Upload: grpc.aio.StreamUnaryMultiCallable[upload_service_pb2.UploadRequest, upload_service_pb2.UploadResponse]

class UploadServiceServicer:
    def Upload(self, request_iterator: Iterator[upload_service_pb2.UploadRequest], context: grpc.ServicerContext) -> upload_service_pb2.UploadResponse: ...

def add_UploadServiceServicer_to_server(servicer: UploadServiceServicer, server: grpc.Server | grpc.aio.Server) -> None: ...
