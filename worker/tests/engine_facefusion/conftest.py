"""The engine against the real program: a checkout that is there already, with synthetic models, and nothing of it in this repository.

`FACEFUSION_HOME` and `FACEFUSION_PYTHON` name it; `FACEFUSION_HOME_2` and `FACEFUSION_PYTHON_2` a second one, of another release. The
checkout itself is not written to: the tests run in a folder of links to it, which has models of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from program import Home, Worker

HOW = "machine: no FaceFusion checkout: `ffjobs engine install facefusion` gets one, or name one in FACEFUSION_HOME and FACEFUSION_PYTHON"
HERE = Path(__file__).resolve().parent
_FULL = os.environ.get("FACEFUSION_TESTS") == "full"


@dataclass(frozen=True)
class Checkout:
    home: str
    python: str


def _checkouts() -> list[Checkout]:
    pairs = [(os.environ.get("FACEFUSION_HOME" + end, ""), os.environ.get("FACEFUSION_PYTHON" + end, "")) for end in ("", "_2")]
    found = [Checkout(home, python) for home, python in pairs if home and python]
    return found if _FULL else found[:1]  # what is quick is quick on one


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Without a checkout all are skipped, and say how to get one.
    if _FULL or not _checkouts():
        return
    longer = pytest.mark.skip(reason="machine: the longer tests with FaceFusion run by `npm run test:engine` (FACEFUSION_TESTS=full)")
    for item in items:
        if item.path.parent == HERE and item.get_closest_marker("quick") is None:
            item.add_marker(longer)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "checkout" in metafunc.fixturenames:
        checkouts = _checkouts() or [None]
        metafunc.parametrize("checkout", checkouts, ids=lambda one: Path(one.home).name if one else "none", scope="session", indirect=True)


@pytest.fixture(scope="session")
def checkout(request: pytest.FixtureRequest) -> Checkout:
    if request.param is None:
        pytest.skip(HOW)
    return request.param


@pytest.fixture(scope="session")
def models(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([checkout.python, str(HERE / "synthetic_models.py"), str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def home(checkout: Checkout, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    (folder / "facefusion").symlink_to(Path(checkout.home) / "facefusion")
    for name in ("facefusion.py", "facefusion.ini"):
        shutil.copyfile(Path(checkout.home) / name, folder / name)
    (folder / ".assets").mkdir()
    (folder / ".assets" / "models").symlink_to(models)
    return Home(folder, checkout.python)


@pytest.fixture(scope="session")
def worker(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One process for all tests of a release: each finds what the ones before it left, which must be nothing."""
    with Worker(home, tmp_path_factory.mktemp("jobs")) as worker:
        yield worker


@pytest.fixture(scope="session")
def commands(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Worker(home, tmp_path_factory.mktemp("commands"), engine="facefusion_subprocess") as worker:
        yield worker
