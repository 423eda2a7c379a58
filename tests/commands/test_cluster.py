"""What a process of several prints of its runtime's lines."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time

import pytest

from sae_jax import UserError
from sae_jax.commands import cluster
from sae_jax.commands.cluster import LOST, MARK, READER, Launch

GREETING = b"[Gloo] Rank 1 is connected to 3 peer ranks. Expected number of connected peer ranks is : 3\n"
INTERLEAVED = (
    b"[Gloo] Rank [Gloo] Rank 2 is connected to 3 peer ranks. Expected number of connected peer ranks is : 3\n"
    b"3 is connected to 3 peer ranks. Expected number of connected peer ranks is : 3\n"
    b"\n"
    b" peer ranks. Expected number of connected peer ranks is : 3\n"
    b"connected peer ranks is : 3\n"
)


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        (GREETING + INTERLEAVED, b""),
        (GREETING + b"plan: 3 lanes\n", b"plan: 3 lanes\n"),
        (b"warning: 3 peer ranks\n\n", b"warning: 3 peer ranks\n\n"),
        (b"  \n", b"  \n"),
        (b"1" * 100_000 + b"!\n", b"1" * 100_000 + b"!\n"),
        (b"F1128 18:00:00.1 coordination_service.cc:1] lost\nand its page\n" + MARK, LOST.encode()),
    ],
    ids=["greetings", "greetings and our own", "our own alone", "spaces", "many digits", "the end"],
)
def test_greetings_of_the_runtime_are_not_printed_and_its_end_is_one_line(written, printed):
    reader = [sys.executable, "-c", READER, LOST, MARK.decode()]
    done = subprocess.run(reader, input=written, capture_output=True, check=True)
    assert (done.stderr, done.stdout) == (printed, b"")


@pytest.mark.parametrize("port", ["0", "99999", "9" * 5000, "0" * 5000], ids=len)
def test_a_port_that_no_machine_has_is_refused(port):
    rule = rf"must have a port in \[1, 65535\]: got 'host:{port[0]}.*'; choose another port"
    with pytest.raises(UserError, match=rule) as refused:
        Launch(coordinator=f"host:{port}")
    assert len(str(refused.value)) < 600


@pytest.fixture
def asked(monkeypatch):
    """The names and ports that are looked up outside of Kubernetes, each of which is found."""
    names = []
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *name: names.append(name))
    return names


def test_a_port_may_be_written_with_zeros_before_it(asked):
    cluster._check_host(Launch(coordinator="host:00007777"))
    assert asked == [("host", 7777)]


@pytest.mark.parametrize(("host", "reason"), [("nowhere", "Name or service not known"), ("a" * 70, "it is no name")])
def test_a_machine_that_nobody_knows_is_refused_by_every_process_at_once(host, reason, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    asked, look_up = [], socket.getaddrinfo

    def unknown(*name):
        asked.append(name)
        if host != "nowhere":
            return look_up(*name)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    words = ["--distributed", "--coordinator", f"{host}:7777", "--processes", "2", "--process-id", "1"]
    for name in ("_filter_runtime_messages", "_end_without_core"):
        monkeypatch.setattr(cluster, name, lambda: None)
    with pytest.raises(UserError, match=f"is found here: got {host}:7777: {reason}; correct the name"):
        cluster.launch(words)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    cluster._check_host(Launch(coordinator=f"{host}:7777"))
    assert asked == [(host, 7777)]


def test_a_name_that_cannot_be_looked_up_yet_is_left_to_the_runtime(asked, monkeypatch):
    def later(*name):
        asked.append(name)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", later)
    cluster._check_host(Launch(coordinator="a:7777"))
    assert asked == [("a", 7777)]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_a_machine_may_be_an_address(host, monkeypatch):
    found, look_up = [], socket.getaddrinfo
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *name: found.extend(look_up(*name)))
    cluster._check_host(Launch(coordinator=f"[{host}]:7777" if ":" in host else f"{host}:7777"))
    assert found and {address[:2] for *_, address in found} <= {("127.0.0.1", 7777), ("::1", 7777)}


@pytest.mark.skipif(importlib.util.find_spec("kubernetes") is not None, reason="Kubernetes would be asked")
def test_a_pod_without_the_package_of_its_cluster_is_told_so_in_a_line():
    code = "from sae_jax.sweeps import processes\ntry: processes.start()\nexcept ValueError as error: print(error)"
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    rule = r"the other processes must be known: \S.*; install jax\[k8s\], which asks Kubernetes for them, or give .*\n"
    assert re.fullmatch(rule, done.stdout) and done.stderr == ""


def test_a_port_that_another_program_has_is_refused_by_the_process_that_would_listen_there():
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # As the runtime's own.
        other.bind(("", 0))
        other.listen()
        place = f"localhost:{other.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"free here: got {place}: Address already in use; choose another port"):
            cluster._check_port(Launch(coordinator=place, processes=2, process_id=0))
        cluster._check_port(Launch(coordinator=place, processes=2, process_id=1))
    cluster._check_port(Launch(coordinator=place, processes=2, process_id=0))


@pytest.mark.parametrize("comes", [True, False])
def test_who_is_waited_for_is_said_and_the_wait_ends_in_a_line(comes, monkeypatch, capsys):
    codes = []
    monkeypatch.setattr(cluster, "SILENT_SECONDS", 0.02)
    monkeypatch.setattr(cluster.distributed, "MEETING_SECONDS", 0.2)
    monkeypatch.setattr(cluster.os, "_exit", codes.append)
    with cluster._meeting(Launch(coordinator="host:7777", processes=3)) as met:
        time.sleep(0.1)
        if comes:
            met()
        time.sleep(0.4)
    said = ["waiting for all 3 processes of this run to meet at host:7777"]
    rule = "error: all 3 processes of this run must meet at host:7777 within 0.2 s"
    said += [] if comes else [f"{rule}: got fewer; start them all, or correct --coordinator"]
    assert capsys.readouterr().err.splitlines() == said and codes == ([] if comes else [2])


def test_an_abort_of_the_runtime_ends_with_the_code_of_a_failure():
    code = (
        "import os, threading; from sae_jax.commands.cluster import _end_without_core\n"
        "_end_without_core(); threading.Thread(target=os.abort).start(); threading.Event().wait(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
