"""Where news may be sent: nowhere inside the network that the server stands in."""

from __future__ import annotations

import ipaddress
import socket
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.receiver import Receiver

from counterfoil.kernel.errors import Invalid
from counterfoil.webhooks import sender as sender_module
from counterfoil.webhooks.sender import Sender
from counterfoil.webhooks.targets import Resolver, check_url, why_not

NOW = datetime(2026, 1, 2, tzinfo=UTC)

REFUSED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.1.2.3",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1",
    "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1", "224.0.1.1",
    "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a00:1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:a00:1::1",
    "2002:7f00:1::", "2002:c0a8:101::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0",
    "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip
ALLOWED = [
    "1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.167.255.255",
    "2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1",
]  # fmt: skip


@pytest.mark.parametrize("address", REFUSED)
async def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    words = f"the address {ipaddress.ip_address(address.partition('%')[0])} is not public"
    assert why_not(address, allow_loopback=False) == words

    async def resolve(host: str, port: int) -> list[str]:
        return ["8.8.8.8", address]  # one that is public does not help

    sender = Sender(allow_loopback=False, seconds=5, resolve=resolve)
    answer = await sender.post("https://hooks.example.com/in", {}, b"{}", at=NOW)
    await sender.close()
    # Nothing was connected to, else the tests' guard of the network would say so.
    assert (answer.status, answer.error) == (None, words)


@pytest.mark.parametrize("address", ALLOWED)
def test_public_addresses_are_not(address: str) -> None:
    assert why_not(address, allow_loopback=False) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_the_switch_lets_this_machine_through_and_nothing_else(address: str) -> None:
    assert why_not(address, allow_loopback=True) is None
    assert why_not("10.0.0.1", allow_loopback=True) is not None
    assert why_not("169.254.169.254", allow_loopback=True) is not None
    assert why_not("0.0.0.0", allow_loopback=True) is not None
    assert why_not("::", allow_loopback=True) is not None


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://hooks.example.com/in", "bad_webhook_url"),
        ("ftp://hooks.example.com/in", "bad_webhook_url"),
        ("https://user:secret@hooks.example.com/in", "bad_webhook_url"),
        ("https://user@hooks.example.com/in", "bad_webhook_url"),
        ("https://hooks.example.com/in#part", "bad_webhook_url"),
        ("https://hooks.example.com:99999/in", "bad_webhook_url"),
        ("https:///in", "bad_webhook_url"),
        ("https://hooks.example.com/in\r\nX: y", "bad_webhook_url"),
        ("https://hooks.example.com/" + "a" * 2000, "bad_webhook_url"),
        ("", "bad_webhook_url"),
        ("https://[::1", "bad_webhook_url"),
        ("http://127.0.0.1/in", "bad_webhook_url"),
        ("https://127.0.0.1/in", "webhook_target_refused"),
        ("https://[::1]/in", "webhook_target_refused"),
        ("https://[::ffff:10.0.0.1]:8443/in", "webhook_target_refused"),
        ("https://169.254.169.254/latest/meta-data", "webhook_target_refused"),
        ("https://localhost/in", "webhook_target_refused"),
        ("https://api.localhost/in", "webhook_target_refused"),
    ],
)
def test_bad_urls_are_refused(url: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_url("url", url, allow_loopback=False)
    assert (refused.value.code, refused.value.errors[0].pointer) == (code, "/url")


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://hooks.example.com:8443/in?token=x%20y",
        "https://8.8.8.8/in",
        "https://[2606:4700:4700::1111]/in",
    ],
)
def test_good_urls_are_not(url: str) -> None:
    assert check_url("url", url, allow_loopback=False) == url


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost"])
async def test_other_spellings_of_this_machine_are_seen_through(host: str) -> None:
    sender = Sender(allow_loopback=False, seconds=5)
    answer = await sender.post(f"https://{host}:1/", {}, b"{}", at=NOW)
    await sender.close()
    assert answer.status is None
    # Systems that do not know such a spelling have no address for it.
    assert answer.error is not None
    assert "is not public" in answer.error or "cannot be resolved" in answer.error


async def test_a_name_is_asked_once_and_what_it_says_is_connected_to(receiver: Receiver) -> None:
    """A second answer (DNS rebinding) is never heard."""
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    sender = Sender(allow_loopback=True, seconds=5, resolve=resolve)
    answer = await sender.post(f"http://rebinding.example:{receiver.port}/in", {"x": "y"}, b"{}", at=NOW)
    assert (answer.status, answer.error) == (200, None)
    assert asked == [("rebinding.example", receiver.port)]
    assert receiver.messages[0].headers["host"] == f"rebinding.example:{receiver.port}"
    # The connection stays: it leads where it was checked to lead.
    assert (await sender.post(f"http://rebinding.example:{receiver.port}/in", {}, b"{}", at=NOW)).error is None
    assert len(asked) == 1
    receiver.answers(None)
    await sender.post(f"http://rebinding.example:{receiver.port}/in", {}, b"{}", at=NOW)
    answer = await sender.post(f"http://rebinding.example:{receiver.port}/in", {}, b"{}", at=NOW)
    assert answer.error == "the address 10.0.0.1 is not public"
    await sender.close()


async def test_the_next_address_is_tried(receiver: Receiver) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]  # nobody listens at the first

    sender = Sender(allow_loopback=True, seconds=5, resolve=resolve)
    answer = await sender.post(f"http://two.example:{receiver.port}/in", {}, b"{}", at=NOW)
    await sender.close()
    assert (answer.status, answer.error) == (200, None)


async def test_a_name_without_an_address_fails() -> None:
    async def nobody(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    sender = Sender(allow_loopback=False, seconds=5, resolve=nobody)
    answer = await sender.post("https://nobody.example/", {}, b"{}", at=NOW)
    await sender.close()
    assert answer == sender_module.Answer(None, "ConnectError: its name cannot be resolved")


async def test_a_slow_resolver_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def never(*_: Any, **__: Any) -> list[Any]:
        released.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never)
    sender = Sender(allow_loopback=False, seconds=0.1)
    answer = await sender.post("https://slow.example/", {}, b"{}", at=NOW)
    released.set()
    await sender.close()
    assert answer == sender_module.Answer(None, "no answer within 0.1 seconds")


async def test_the_system_is_asked_for_addresses() -> None:
    resolver = Resolver()
    assert await resolver("127.0.0.1", 80) == ["127.0.0.1"]
    with pytest.raises(OSError, match="not a name"):
        await resolver("a" * 70 + ".example", 80)
    resolver.close()
