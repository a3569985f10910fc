"""Starting and stopping: ports, threads, signals, and requests that are still waiting."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest
import requests

from bioforge.simulator import Simulator, SimulatorOptions, serve

ROOT = Path(__file__).parents[2]
ASK = {"model": "m", "input": "Kobro"}
KEY = {"Authorization": "Bearer key"}
HALF = b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer key\r\nContent-Length: 100\r\n\r\n{"
"""A request that announces more than it sends."""


def test_it_answers_when_the_block_begins_and_not_after_it():
    before = threading.active_count()
    with Simulator() as server:
        assert server.base_url == f"http://127.0.0.1:{server.port}/v1"
        assert requests.post(f"{server.base_url}/responses", json=ASK, headers=KEY).status_code == 200
    assert threading.active_count() == before
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{server.url}/simulator/health")


def test_two_run_side_by_side():
    with Simulator() as first, Simulator() as second:
        assert first.port != second.port
        requests.post(f"{first.base_url}/responses", json=ASK, headers=KEY)
        assert (len(first.ledger), len(second.ledger)) == (1, 0)


def test_only_local_names_and_addresses_are_answered():
    with Simulator() as server:
        for name, status in (
            ("localhost", 200),
            ("LOCALHOST.:80", 200),
            ("127.0.0.1:1", 200),
            ("[::1]:80", 200),
            ("attacker.example", 403),
            ("127.0.0.1.attacker.example:80", 403),
            ("localhost@attacker.example", 403),
            ("[", 403),
        ):
            for path in ("/simulator/ledger", "/simulator/health"):
                assert requests.get(server.url + path, headers={"Host": name}).status_code == status, name
        refused = requests.post(f"{server.base_url}/responses", json=ASK, headers={**KEY, "Host": "attacker.example"})
        assert refused.status_code == 403
        assert len(server.ledger) == 0


def test_a_port_in_use_is_an_error_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} on 127.0.0.1 is already in use") as caught:
            Simulator(port=port).start()
    assert caught.value.errno == errno.EADDRINUSE


def test_connections_that_arrive_while_it_stops_are_closed_too():
    """Nobody knows them yet; what is left open is a warning, and so an error here, when it is collected."""
    for _ in range(20):
        with ExitStack() as clients, Simulator() as server:
            for _ in range(30):
                clients.enter_context(socket.create_connection(("127.0.0.1", server.port)))
    gc.collect()


def test_a_stopped_port_can_be_used_again_at_once():
    with Simulator() as server:
        requests.post(f"{server.base_url}/responses", json=ASK, headers=KEY)
    with Simulator(port=server.port) as again:
        assert requests.get(f"{again.url}/simulator/health").status_code == 200


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:0"):
        Simulator(host="192.0.2.1").start()


def test_it_listens_on_ipv6_too():
    try:
        server = Simulator(host="::1")
        server.start()
    except OSError:
        pytest.skip("no IPv6 here")
    try:
        assert requests.get(f"{server.url}/simulator/health").status_code == 200
    finally:
        server.stop()


def test_a_ledger_that_cannot_be_written_fails_the_start(tmp_path):
    with pytest.raises(FileNotFoundError):
        Simulator(SimulatorOptions(ledger=tmp_path / "no" / "ledger.jsonl")).start()


def test_starting_twice_is_refused(server):
    with pytest.raises(RuntimeError, match="running already"):
        server.start()


def test_stopping_does_not_wait_for_requests_that_hang():
    async def hang_then_stop(server, number):
        async with aiohttp.ClientSession(headers=KEY) as session:
            waiting = [
                asyncio.ensure_future(session.post(f"{server.base_url}/responses", json={**ASK, "user": str(n)}))
                for n in range(number)
            ]
            while server.ledger.counts.faults.get("hang", 0) < number:
                await asyncio.sleep(0)
            started = time.perf_counter()
            await asyncio.to_thread(server.stop)
            took = time.perf_counter() - started
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        return took, outcomes

    server = Simulator(SimulatorOptions(faults={"hang": 1.0}))
    server.start()
    took, outcomes = asyncio.run(hang_then_stop(server, 20))
    assert took < 2
    assert all(isinstance(outcome, aiohttp.ClientError) for outcome in outcomes)
    assert len(server.ledger) == 20


def test_stopping_does_not_wait_for_idle_or_silent_connections():
    with Simulator() as server, requests.Session() as session:
        session.post(f"{server.base_url}/responses", json=ASK, headers=KEY)
        half = socket.create_connection(("127.0.0.1", server.port))
        half.sendall(HALF)
        requests.get(f"{server.url}/simulator/health")
        started = time.perf_counter()
        server.stop()
        assert time.perf_counter() - started < 2
        half.close()


def test_a_client_that_leaves_while_sending_is_no_failure_of_the_server(server):
    with socket.create_connection(("127.0.0.1", server.port)) as half:
        half.sendall(HALF)
        requests.get(f"{server.url}/simulator/health")
    for _ in range(1000):
        if server.ledger.counts.requests:
            break
        requests.get(f"{server.url}/simulator/health")
    assert server.ledger.counts.statuses == {0: 1}


def test_latency_delays_answers_and_not_refusals(start):
    server = start(latency=0.2)
    url = f"{server.base_url}/responses"
    answered = requests.post(url, json=ASK, headers=KEY)
    assert answered.elapsed.total_seconds() >= 0.2
    assert int(answered.headers["openai-processing-ms"]) >= 190
    refused = requests.post(url, json={}, headers=KEY)
    assert int(refused.headers["openai-processing-ms"]) < 190


def test_an_answer_whose_client_left_is_charged_as_dropped(start):
    server = start(latency=0.15)
    with pytest.raises(requests.Timeout):
        requests.post(f"{server.base_url}/responses", json=ASK, headers=KEY, timeout=0.05)
    # The next answer is ready after the first one.
    requests.post(f"{server.base_url}/responses", json=ASK, headers=KEY)
    assert [charge.delivered for charge in server.ledger.entries()] == ["dropped", "yes"]


SERVE = """
from bioforge.simulator import SimulatorOptions, serve
ledger = serve(SimulatorOptions(), port=0, ready=lambda server: print(server.base_url, flush=True))
print(ledger.totals().charges, flush=True)
"""


def test_serving_in_the_foreground_can_be_stopped_from_where_it_says_it_is_ready():
    ledger = serve(port=0, ready=lambda server: server.stop())
    assert ledger.totals().charges == 0


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serving_in_the_foreground_ends_cleanly_on_a_signal(number):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    with subprocess.Popen(
        [sys.executable, "-c", SERVE],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        base_url = process.stdout.readline().strip()
        assert requests.post(f"{base_url}/responses", json=ASK, headers=KEY).status_code == 200
        process.send_signal(number)
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, output, errors) == (0, "1\n", "")


def test_importing_it_imports_neither_asyncio_nor_aiohttp():
    code = "import bioforge.simulator, json, sys; print(json.dumps(sorted(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert {"aiohttp", "asyncio", "openai"}.isdisjoint(json.loads(run.stdout))
