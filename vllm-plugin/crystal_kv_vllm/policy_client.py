"""The engine's stream to the policy service."""

import logging
import random
import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Protocol

import grpc

from .gen import policy_pb2 as pb
from .gen.policy_pb2_grpc import KvPolicyStub
from .outbox import Outbox

logger = logging.getLogger("vllm.crystal_kv")

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
#: A service that speaks another protocol will not learn ours soon.
INCOMPATIBLE_BACKOFF_S = 30.0

_CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 3000),
    ("grpc.keepalive_timeout_ms", 2000),
    # a minute otherwise, which would be the time to notice a service that hangs
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", int(FIRST_BACKOFF_S * 1000)),
    ("grpc.max_reconnect_backoff_ms", int(MAX_BACKOFF_S * 1000)),
    # one channel to itself: a stream that hangs must not be shared
    ("grpc.use_local_subchannel_pool", 1),
]


class PolicyListener(Protocol):
    """What the engine does with what the service says. Called on the client's thread."""

    def on_configure(self, configure: pb.Configure, outbox: Outbox) -> None:
        """The stream is up, or its configuration has changed. A new outbox: a new stream, send a snapshot."""

    def on_plan(self, plan: pb.Plan) -> None: ...

    def on_detached(self) -> None:
        """The stream is gone: stock behaviour until `on_configure` comes again."""


class PolicyClient:
    """Connects again by itself, for ever, on a thread of its own; nothing waits for it.

    To be made in the process that schedules, after vLLM has forked it: gRPC channels do not survive a fork.
    """

    def __init__(
        self, address: str, token: str | None, ca_file: str | None, hello: pb.Hello, listener: PolicyListener
    ) -> None:
        self._address = address
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._ca_file = ca_file
        self._hello = hello
        self._listener = listener
        self._closing = threading.Event()
        self._call: grpc.Call | None = None
        self._attached = False
        self._incompatible = False
        self._thread = threading.Thread(target=self._run, name="crystal-kv-policy", daemon=True)

    @property
    def attached(self) -> bool:
        return self._attached

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the stream and the thread."""
        self._closing.set()
        call = self._call
        if call is not None:
            call.cancel()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        backoff = FIRST_BACKOFF_S
        with self._channel() as channel:
            stub = KvPolicyStub(channel)
            while not self._closing.is_set():
                welcomed = self._attach(stub)
                if self._incompatible:
                    wait = INCOMPATIBLE_BACKOFF_S
                else:
                    backoff = FIRST_BACKOFF_S if welcomed else min(MAX_BACKOFF_S, backoff * 2)
                    wait = backoff * random.uniform(0.5, 1)
                self._closing.wait(wait)

    def _channel(self) -> grpc.Channel:
        if self._ca_file is None:
            return grpc.insecure_channel(self._address, options=_CHANNEL_OPTIONS)
        credentials = grpc.ssl_channel_credentials(Path(self._ca_file).read_bytes())
        return grpc.secure_channel(self._address, credentials, options=_CHANNEL_OPTIONS)

    def _attach(self, stub: KvPolicyStub) -> bool:
        """One stream, from its beginning to its end. Returns whether the service took it."""
        outbox = Outbox()
        welcomed = False
        reason = "the service ended the stream"
        self._incompatible = False
        try:
            call = stub.Attach(self._messages(outbox), metadata=self._metadata)
            self._call = call
            if self._closing.is_set():
                call.cancel()
            for response in call:
                welcomed = True
                self._receive(response, outbox)
                if outbox.closed:
                    reason = "the service reads its messages too slowly"
                    call.cancel()
                    break
        except grpc.RpcError as error:
            reason = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)
            self._incompatible = isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.FAILED_PRECONDITION
        except Exception:
            # else this thread would end, and nothing be evicted ever again
            logger.exception("crystal-kv cannot follow a message of the policy service")
            reason = "a message could not be followed"
        finally:
            self._call = None
            outbox.close()
        if self._attached:
            self._attached = False
            self._listener.on_detached()
            if not self._closing.is_set():
                logger.warning("lost the policy service at %s, so nothing is evicted: %s", self._address, reason)
        elif self._incompatible:
            logger.warning("the policy service at %s refuses this engine: %s", self._address, reason)
        return welcomed

    def _messages(self, outbox: Outbox) -> Iterator[pb.AttachRequest]:
        return chain([pb.AttachRequest(hello=self._hello)], outbox)

    def _receive(self, response: pb.AttachResponse, outbox: Outbox) -> None:
        match response.WhichOneof("message"):
            case "configure":
                if not self._attached:
                    logger.info("attached to the policy service at %s", self._address)
                self._attached = True
                self._listener.on_configure(response.configure, outbox)
            case "plan" if self._attached:
                self._listener.on_plan(response.plan)
            case _:
                # welcome, or a message of a later version
                pass
