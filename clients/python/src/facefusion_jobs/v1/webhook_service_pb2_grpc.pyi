# Made by `npm run generate`.
import grpc
import grpc.aio

from facefusion_jobs.v1 import webhook_service_pb2

class WebhookServiceStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    ListDeliveries: grpc.UnaryUnaryMultiCallable[webhook_service_pb2.ListDeliveriesRequest, webhook_service_pb2.ListDeliveriesResponse]
    ReplayDelivery: grpc.UnaryUnaryMultiCallable[webhook_service_pb2.ReplayDeliveryRequest, webhook_service_pb2.ReplayDeliveryResponse]

class WebhookServiceAsyncStub:
    ListDeliveries: grpc.aio.UnaryUnaryMultiCallable[webhook_service_pb2.ListDeliveriesRequest, webhook_service_pb2.ListDeliveriesResponse]
    ReplayDelivery: grpc.aio.UnaryUnaryMultiCallable[webhook_service_pb2.ReplayDeliveryRequest, webhook_service_pb2.ReplayDeliveryResponse]

class WebhookServiceServicer:
    def ListDeliveries(self, request: webhook_service_pb2.ListDeliveriesRequest, context: grpc.ServicerContext) -> webhook_service_pb2.ListDeliveriesResponse: ...
    def ReplayDelivery(self, request: webhook_service_pb2.ReplayDeliveryRequest, context: grpc.ServicerContext) -> webhook_service_pb2.ReplayDeliveryResponse: ...

def add_WebhookServiceServicer_to_server(servicer: WebhookServiceServicer, server: grpc.Server | grpc.aio.Server) -> None: ...
