"""Tiny data sets, folders of their own, and a local server whose behaviour a test chooses."""

import gzip
import hashlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from spikeprune.data.sources import File, Source


def idx_images(count):
    return struct.pack(">4I", 0x803, count, 28, 28) + bytes(index % 251 for index in range(count * 784))


def idx_labels(labels):
    return struct.pack(">2I", 0x801, len(labels)) + bytes(labels)


@dataclass(frozen=True)
class Published:
    """The content of a tiny data set, by plain file name, and its files compressed as a publisher would."""

    plain: dict[str, bytes]

    @property
    def packed(self):
        return {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in self.plain.items()}

    def source(self, *mirrors, name="tiny"):
        files = [
            File(
                f"{file}.gz",
                content=hashlib.sha256(content).hexdigest(),
                published=f"sha256:{hashlib.sha256(self.packed[f'{file}.gz']).hexdigest()}",
            )
            for file, content in self.plain.items()
        ]
        return Source(name, 3, tuple(files[:2]), tuple(files[2:]), mirrors, "none")


@pytest.fixture
def tiny():
    return Published(
        {
            "train-images": idx_images(4),
            "train-labels": idx_labels([0, 1, 2, 0]),
            "test-images": idx_images(2),
            "test-labels": idx_labels([2, 1]),
        }
    )


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The user's own folder and the cache, both empty, as the environment names them."""
    own, cache = tmp_path / "own", tmp_path / "cache"
    own.mkdir()
    monkeypatch.setenv("SPIKEPRUNE_DATA", str(own))
    monkeypatch.setenv("SPIKEPRUNE_CACHE", str(cache))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return own, cache


def put(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


@dataclass
class Server:
    """Serves `contents` by file name; announces `extra_bytes` more than it sends; counts what it was asked for."""

    url: str
    contents: dict[str, bytes] = field(default_factory=dict)
    extra_bytes: int = 0
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def serve():
    """A function that starts a server on 127.0.0.1; all are stopped at the end of the test."""
    running = []

    def start(contents, extra_bytes=0):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                state.asked.append(self.path.removeprefix("/"))
                content = state.contents.get(self.path.removeprefix("/"))
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content) + state.extra_bytes))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        state = Server(f"http://127.0.0.1:{server.server_port}/", contents, extra_bytes)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return state

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def closed_port():
    """The URL of a port that is taken, so that nobody else gets it, and on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/"


@pytest.fixture(name="put")
def _put():
    return put
