"""Where the service connects on a caller's word, and what it reads there."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.errors import ConfigError
from serving.delivery.addresses import may_reach, parse_openings, parse_url
from serving.delivery.outbound import Answer, Call, Outbound, OutboundError, OutboundPolicy
from serving.settings import JobSettings
from tests.support_bundle import babble, make_bundle
from tests.support_receiver import Receiver, make_certificate, receiving
from tests.support_service import running, wav
from tests.unit.test_serving_jobs_api import ended, error_of

GLOBAL = ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946")
FORBIDDEN = (
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1",
    "255.255.255.255", "192.0.0.8", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00::1",
    "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "3fff::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", "no address", "",
)  # fmt: skip


@pytest.mark.parametrize("address", GLOBAL)
def test_global_addresses_are_reached_on_443_only(address: str) -> None:
    assert may_reach(address, 443, ())
    assert not may_reach(address, 80, ()) and not may_reach(address, 22, ())


@pytest.mark.parametrize("address", FORBIDDEN)
def test_no_other_address_is_reached_in_any_of_its_forms(address: str) -> None:
    assert not may_reach(address, 443, ())


@given(st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_a_private_address_stays_private_inside_ipv6(address: Any) -> None:
    number = int(address)
    for form in (f"::ffff:{address}", f"64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}",
                 f"2002:{number >> 16:x}:{number & 0xFFFF:x}::"):  # fmt: skip
        assert not may_reach(form, 443, ())
        assert may_reach(form, 443, parse_openings("10.0.0.0/8:443"))


def test_an_opening_is_a_network_and_a_port() -> None:
    openings = parse_openings("127.0.0.1/32:8080, [fd00::/8]:443,")
    assert may_reach("127.0.0.1", 8080, openings) and not may_reach("127.0.0.1", 8081, openings)
    assert not may_reach("127.0.0.2", 8080, openings)
    assert may_reach("fd00::7", 443, openings) and not may_reach("fe80::7", 443, openings)
    for text in ("10.0.0.0/8", "10.0.0.1/8:443", "nowhere:443", "10.0.0.0/8:x"):
        with pytest.raises(ConfigError, match="CIDR:PORT"):
            parse_openings(text)


class Names:
    """A name server whose answer may change from one question to the next."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def call(
    url: str, names: Names, openings: str, *, ca_file: Path | None = None, **limits: Any
) -> tuple[Answer, bytes]:
    policy = OutboundPolicy(openings=parse_openings(openings), ca_file=ca_file)
    outbound = Outbound(policy, resolver=names)
    place = parse_url(url, policy.openings, param="url")
    content = bytearray()
    options = {"timeout_s": 5.0, "max_bytes": 1000, **limits}
    made = Call(method="GET", place=place, headers={})
    answer = asyncio.run(outbound.call(made, sink=content.extend, **options))
    return answer, bytes(content)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def test_a_name_is_asked_for_once_and_the_checked_address_is_used(receiver: Receiver) -> None:
    """A rebinding name: allowed when it is checked, forbidden when it is asked again."""
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    url = f"http://hooks.example:{receiver.port}/hook?a=1"
    answer, content = call(url, names, receiver.opening)
    assert (answer.status, content) == (200, b"ok") and names.asked == ["hooks.example"]
    (got,) = receiver.got
    assert got.headers["host"] == f"hooks.example:{receiver.port}" and got.path == "/hook?a=1"
    with pytest.raises(OutboundError, match="may reach"):
        call(url, names, receiver.opening)
    assert len(receiver.got) == 1


def test_one_forbidden_address_among_good_ones_is_enough_to_refuse(receiver: Receiver) -> None:
    url = f"http://hooks.example:{receiver.port}/"
    for addresses in (["127.0.0.1", "127.0.0.2"], ["10.0.0.1", "127.0.0.1"], []):
        with pytest.raises(OutboundError, match="may reach"):
            call(url, Names(addresses), receiver.opening)
    assert not receiver.got


def test_tls_is_judged_by_the_name_of_the_url(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "hooks.pem", "hooks.example")
    with receiving(certificate) as receiver:
        names = Names(["127.0.0.1"])
        url = f"https://hooks.example:{receiver.port}/"
        answer, _ = call(url, names, receiver.opening, ca_file=certificate)
        assert answer.status == 200 and receiver.server_names == ["hooks.example"]
        for wrong, authority in (
            (f"https://other.example:{receiver.port}/", certificate),
            (url, None),
        ):
            with pytest.raises(OutboundError, match="TLS"):
                call(wrong, names, receiver.opening, ca_file=authority)
        assert len(receiver.got) == 1


def test_no_proxy_of_the_environment_is_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    answer, _ = call(receiver.url, Names(["127.0.0.1"]), receiver.opening)
    assert answer.status == 200


def test_a_redirect_is_an_answer_and_is_not_followed(receiver: Receiver) -> None:
    receiver.answer = lambda count: (302, {"Location": "http://169.254.169.254/"})
    answer, _ = call(receiver.url, Names(["127.0.0.1"]), receiver.opening)
    assert answer.status == 302 and len(receiver.got) == 1


def test_a_large_or_compressed_answer_is_cut_off(receiver: Receiver) -> None:
    receiver.content = b"x" * 1001
    with pytest.raises(OutboundError, match="larger than 1000"):
        call(receiver.url, Names(["127.0.0.1"]), receiver.opening)
    receiver.answer = lambda count: (200, {"Content-Encoding": "gzip"})
    with pytest.raises(OutboundError, match="compressed"):
        call(receiver.url, Names(["127.0.0.1"]), receiver.opening)


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _speaking(talk: Talk) -> Any:
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _meet(talk: Talk, timeout_s: float) -> None:
    async def meet() -> None:
        async with _speaking(talk) as port:
            openings = parse_openings(f"127.0.0.1/32:{port}")
            outbound = Outbound(OutboundPolicy(openings=openings))
            place = parse_url(f"http://127.0.0.1:{port}/", openings, param="url")
            made = Call(method="GET", place=place, headers={})
            sink = bytearray().extend
            await outbound.call(made, timeout_s=timeout_s, max_bytes=1 << 20, sink=sink)

    asyncio.run(meet())


def test_the_time_is_that_of_the_whole_exchange_however_it_trickles() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.01)

    with pytest.raises(OutboundError, match=r"within 0\.2 s"):
        _meet(trickle, 0.2)


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"a" * 200_000,
             b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"],
)  # fmt: skip
def test_what_is_no_answer_is_no_answer(said: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    with pytest.raises(OutboundError):
        _meet(speak, 5.0)


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def test_audio_is_fetched_from_a_host_that_the_operator_named(
    bundle_dir: Path, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.content = wav(babble(1.5))
    settings = JobSettings(
        folder=tmp_path,
        url_hosts=("127.0.0.1", "*.example.com"),
        outbound_openings=receiver.opening,
        max_attempts=1,
    )
    with running(bundle_dir, jobs=settings, max_upload_bytes=1 << 17) as (client, _):

        def fetch(url: str) -> dict[str, Any]:
            answer = client.post("/v1/jobs", json={"model": "tiny", "url": url})
            assert answer.status_code == 202, answer.text
            return ended(client, answer.json()["id"])

        job = fetch(receiver.url)
        assert job["status"] == "done" and job["source"] == "url"
        for url in ("https://elsewhere.org/a.wav", "https://example.com/a.wav"):
            refused = client.post("/v1/jobs", json={"model": "tiny", "url": url})
            assert refused.status_code == 400 and error_of(refused)["code"] == "url_not_allowed"
        receiver.answer = lambda count: (302, {"Location": "http://169.254.169.254/"})
        assert "answered 302" in fetch(receiver.url)["error"]["message"]
        receiver.answer = lambda count: (200, {})
        receiver.content = bytes(1 << 18)
        failed = fetch(receiver.url)
        assert (failed["error"]["code"], failed["error"]["param"]) == ("audio_too_large", "url")
        assert "larger than" in failed["error"]["message"]
        assert not list((tmp_path / "incoming").iterdir()), "what was fetched is not kept"
