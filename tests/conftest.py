"""What every level shares: one devcluster of the tests' own (a demo on the same machine is left alone) and the two images.

images wanted? ─► built in the background (downloads) ─┐
cluster.up()    (compiles on a bare machine) ──────────┴─► loaded when the first test asks for one
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from devcluster.cluster import Cluster
from devcluster.programs import install_packages

os.environ.setdefault("DEVCLUSTER_INSTANCE", "test")
ROOT = Path(__file__).parents[1]
IMAGES = {
    "operator_image": ("lora-operator", "operator/Dockerfile"),
    "job_image": ("lora-job", "merge_job_image/Dockerfile"),
}


@pytest.fixture(scope="session")
def image_builds(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[str]]]:
    """The images that tests of this run will ask for, one build after another beside everything else."""
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    images = Cluster().images
    install_packages(say=lambda _: None)
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield {
            fixture: pool.submit(images.build, name=name, dockerfile=ROOT / dockerfile, context=ROOT)
            for fixture, (name, dockerfile) in IMAGES.items()
            if fixture in wanted
        }


@pytest.fixture(scope="session")
def cluster(image_builds: Mapping[str, Future[str]]) -> Cluster:
    """A ready devcluster; left running, because the next run is then quicker (`devcluster down` removes it)."""
    cluster = Cluster()
    cluster.up()
    return cluster


@pytest.fixture(scope="session")
def operator_image(cluster: Cluster, image_builds: Mapping[str, Future[str]]) -> str:
    """Built from operator/Dockerfile and loaded."""
    return _loaded(cluster, image_builds["operator_image"])


@pytest.fixture(scope="session")
def job_image(cluster: Cluster, image_builds: Mapping[str, Future[str]]) -> str:
    """Built from merge_job_image/Dockerfile and loaded."""
    return _loaded(cluster, image_builds["job_image"])


def _loaded(cluster: Cluster, build: Future[str]) -> str:
    reference = build.result()
    cluster.images.load(reference, node=1)
    return reference
