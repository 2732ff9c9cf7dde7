"""What a type checker sees: both clients alike, and every rpc of the contract with its messages."""

import ast
import inspect
import typing
from importlib import import_module
from pathlib import Path

import pytest

import facefusion_jobs
from facefusion_jobs import AsyncJobsClient, JobsClient

V1 = Path(facefusion_jobs.__file__).parent / "v1"
SERVICES = [path.name.removesuffix(".py") for path in sorted(V1.glob("*_service_pb2.py"))]


def public_methods(client):
    methods = inspect.getmembers(client, inspect.isfunction)
    return {name: method for name, method in methods if not name.startswith("_") or name == "__init__"}


def test_both_clients_have_the_same_methods_all_of_them_typed():
    blocking, awaited = public_methods(JobsClient), public_methods(AsyncJobsClient)
    assert len(blocking) > 10
    assert blocking.keys() == awaited.keys()
    for name, method in blocking.items():
        signature = inspect.signature(method)
        assert signature.parameters == inspect.signature(awaited[name]).parameters, name
        for kind in (method, awaited[name]):
            hints = typing.get_type_hints(kind)
            assert hints.keys() >= {*signature.parameters, "return"} - {"self"}, name
            assert hints["return"] is not typing.Any, name


@pytest.mark.parametrize("module", SERVICES)
def test_each_rpc_of_the_contract_is_typed_by_its_messages(module):
    classes = {one.name: one for one in ast.parse((V1 / f"{module}_grpc.pyi").read_text()).body if isinstance(one, ast.ClassDef)}
    services = import_module(f"facefusion_jobs.v1.{module}").DESCRIPTOR.services_by_name
    assert len(services) == 1
    for name, service in services.items():
        assert len(service.methods) > 0
        kinds = {
            f"{name}Stub": "grpc.",
            f"{name}AsyncStub": "grpc.aio.",
        }
        for stub, prefix in kinds.items():
            typed = {one.target.id: ast.unparse(one.annotation) for one in classes[stub].body if isinstance(one, ast.AnnAssign)}
            assert typed == {
                method.name: f"{prefix}{'Stream' if method.client_streaming else 'Unary'}{'Stream' if method.server_streaming else 'Unary'}"
                f"MultiCallable[{of(method.input_type)}, {of(method.output_type)}]"
                for method in service.methods
            }


def of(message):
    return f"{Path(message.file.name).stem}_pb2.{message.name}"


def test_the_package_says_that_it_is_typed():
    assert (V1.parent / "py.typed").is_file()
