"""The stream to the policy service: it comes back by itself, and nobody waits for it."""

from collections.abc import Callable, Iterator

import grpc
import pytest
from ports import free_port
from scripted_peer import ScriptedPeer
from waiting import until

from crystal_kv_vllm.gen import policy_pb2 as pb
from crystal_kv_vllm.outbox import Outbox
from crystal_kv_vllm.policy_client import PolicyClient


class Listener:
    """Sends the snapshot of one request on each new stream."""

    def __init__(self) -> None:
        self.outboxes: list[Outbox] = []
        self.plans: list[pb.Plan] = []
        self.detached = 0

    def on_configure(self, configure: pb.Configure, outbox: Outbox) -> None:
        if outbox not in self.outboxes:
            self.outboxes.append(outbox)
            started = pb.Started(handle=7, evicted=[3])
            outbox.put(pb.AttachRequest(snapshot=pb.Snapshot(requests=[started])))

    def on_plan(self, plan: pb.Plan) -> None:
        self.plans.append(plan)

    def on_detached(self) -> None:
        self.detached += 1


@pytest.fixture
def connect() -> Iterator[Callable[[str], tuple[PolicyClient, Listener]]]:
    clients = []

    def connect(address: str) -> tuple[PolicyClient, Listener]:
        listener = Listener()
        client = PolicyClient(address, None, None, pb.Hello(engine_id="e", protocol_min=1, protocol_max=1), listener)
        client.start()
        clients.append(client)
        return client, listener

    yield connect
    for client in clients:
        client.close()


def test_a_service_that_comes_later_and_comes_back_gets_hello_and_snapshot(
    connect: Callable[[str], tuple[PolicyClient, Listener]],
) -> None:
    port = free_port()
    client, listener = connect(f"127.0.0.1:{port}")
    for times in (1, 2):
        peer = ScriptedPeer(port)  # type: ignore[abstract]
        peer.wait_for(peer.attached.is_set)
        assert peer.hello is not None
        assert peer.hello.engine_id == "e"
        assert [list(started.evicted) for started in peer.snapshots[0].requests] == [[3]]
        assert len(listener.outboxes) == times
        assert client.attached
        old = listener.outboxes[-1]
        peer.close()
        until(lambda times=times: listener.detached == times, "the client notices")  # type: ignore[misc]
        assert not client.attached
        assert old.closed


def test_plans_arrive_and_the_client_closes_while_the_stream_is_up(
    connect: Callable[[str], tuple[PolicyClient, Listener]],
) -> None:
    peer = ScriptedPeer()  # type: ignore[abstract]
    client, listener = connect(peer.address)
    peer.wait_for(peer.attached.is_set)
    listener.outboxes[0].put(pb.AttachRequest(step=pb.Step(step=4)))
    until(lambda: [plan.based_on_step for plan in listener.plans] == [4], "the plan arrives")
    client.close()
    until(lambda: not client._thread.is_alive(), "the end of the client's thread")
    assert listener.detached == 1
    peer.close()


def test_a_service_of_another_protocol_is_left_alone_for_long(
    connect: Callable[[str], tuple[PolicyClient, Listener]],
) -> None:
    calls = []

    class Refusing(ScriptedPeer):
        def Attach(self, messages, context):  # type: ignore[no-untyped-def]  # noqa: N802
            calls.append(next(messages))
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "protocol 2 to 3, the engine has 1 to 1")

    peer = Refusing()  # type: ignore[abstract]
    client, listener = connect(peer.address)
    until(lambda: len(calls) == 1, "the first try")
    until(lambda: client._incompatible, "the client understands")
    assert not listener.outboxes
    client.close()
    assert len(calls) == 1
    peer.close()
