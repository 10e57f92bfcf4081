"""Log lines carry no secrets."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from counterfoil import logs
from counterfoil.settings import Settings

KEY = "cfk_abcdefghijklmnopqrstuvwxyz234567aaaaaa"
LICENSE = "LIC1-AIAADIP5ZHYS5S5BND5DEEG6JM-QHFVK32M3G66ONQFWT23RLH6UIQRKHKX"
CLAIM = "pur_01m7ywkwa6m2e3mby66afs6qmkis7adsxsy36osst5ep47izywpa"


def test_secrets_are_hidden_by_name_and_by_form() -> None:
    shown = logs.hide_secrets(
        None,
        "info",
        {
            "event": f"used {KEY} on {LICENSE}",
            "path": f"/v1/purchase/{CLAIM}",
            "api_key": "anything",
            "authorization": "Bearer x",
            "webhook_secret": "y",
            "status": 200,
        },
    )
    assert shown == {
        "event": "used ... on ...",
        "path": "/v1/purchase/...",
        "api_key": "...",
        "authorization": "...",
        "webhook_secret": "...",
        "status": 200,
    }


@pytest.mark.parametrize("rest", ["", "/passkey"])
def test_links_that_work_once_are_hidden(rest: str) -> None:
    path = f"/enroll/zy7gdny6yiu2p6gnrbniuptt2iqlrzxy{rest}"
    assert logs.hide_secrets(None, "info", {"path": path}) == {"path": f"/enroll/...{rest}"}
    harmless = {"path": "/v1/me/passkeys/psk_01kdyak3sezhdgah9prqcn0ffk", "request_id": "7b51c64475545a97"}
    assert logs.hide_secrets(None, "info", dict(harmless)) == harmless


def test_lines_are_json_ours_and_the_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    kept = logging.getLogger().handlers
    try:
        logs.set_up(Settings.load(log_format="json"))
        structlog.get_logger("ours").info("sold", claim=CLAIM, count=2)
        logging.getLogger("library").warning("odd thing with %s", KEY)
    finally:
        logging.getLogger().handlers = kept
        structlog.reset_defaults()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("sold", "info"),
        ("odd thing with ...", "warning"),
    ]
    assert lines[0]["claim"] == "..."
    assert lines[0]["count"] == 2
