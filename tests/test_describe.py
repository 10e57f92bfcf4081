"""The page about the tables says what the tables are."""

from __future__ import annotations

from pathlib import Path

import pytest

from counterfoil.describe import describe, main
from counterfoil.tables import STRUCTS

PAGE = Path(__file__).parents[1] / "docs" / "data-model.md"


def test_the_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", str(PAGE)]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_stale_page_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(describe().replace("microseconds", "seconds"), encoding="utf-8")
    assert main(["--check", str(page)]) == 1
    assert capsys.readouterr().err == f"{page} is stale: python -m counterfoil.describe > {page}\n"


def test_the_page_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == describe()
    assert main(["--what"]) == 2


def test_every_table_is_described_with_all_its_parts() -> None:
    page = describe()
    sections = {part.partition("\n")[0]: part for part in page.split("\n### ")[1:]}
    assert set(sections) == {table.name for table in STRUCTS}
    for table, struct in STRUCTS.items():
        section = sections[table.name]
        assert (struct.__doc__ or "").split(".")[0].replace("``", "`") in section.replace("\n", " ")
        for name in [column.name for column in table.columns] + [index.name for index in table.indexes]:
            assert f"`{name}`" in section


def test_a_section_says_it_all() -> None:
    assert """
### machines

One fingerprint a license was activated on. Only the fingerprint's SHA-256 is kept.

| column | type | null | |
|---|---|---|---|
| `tenant_id` | text |  |  |
| `id` | text |  |  |
| `license_id` | text |  |  |
| `fingerprint_hash` | text |  |  |
| `hostname` | text | null |  |
| `platform` | text | null |  |
| `address` | text | null |  |
| `last_heartbeat_at` | moment |  |  |
| `deactivated_at` | moment | null |  |
| `deactivation_reason` | text | null |  |
| `created_at` | moment |  |  |
| `updated_at` | moment |  |  |

- primary key: `tenant_id`, `id`
- `license_id` refers to [licenses](#licenses)
- unique `uq_machines_active`: `license_id`, `fingerprint_hash`, where `deactivated_at IS NULL`
- index `ix_machines_license`: `license_id`, `id`
""" in describe()
