"""Country codes, languages and time zones."""

from __future__ import annotations

import pytest
from babel import Locale

from counterfoil.kernel.countries import COUNTRIES, check_country
from counterfoil.kernel.errors import Invalid
from counterfoil.kernel.locales import check_locale, check_time_zone

NOT_IN_ISO_3166 = {
    "AC", "CP", "CQ", "DG", "EA", "IC", "TA",  # exceptionally reserved: islands and the like
    "EU", "EZ", "UN",  # unions
    "QO", "XA", "XB", "XK", "ZZ",  # Unicode's own
}  # fmt: skip


def test_countries_are_those_of_iso_3166() -> None:
    assert len(COUNTRIES) == 249
    territories = {code for code in Locale("en").territories if len(code) == 2 and code.isalpha()}
    assert territories - COUNTRIES == NOT_IN_ISO_3166
    assert not COUNTRIES - territories


@pytest.mark.parametrize("wrong", ["", "de", "DEU", "UK", "XK", "AN", "D", "ß"])
def test_what_is_no_country(wrong: str) -> None:
    assert check_country("country", "GB") == "GB"
    with pytest.raises(Invalid) as told:
        check_country("country", wrong)
    assert told.value.code == "unknown_country"


@pytest.mark.parametrize("tag", ["en", "de-AT", "zh-Hant-TW", "zh-TW", "sr-Latn-RS", "es-419", "fil"])
def test_languages(tag: str) -> None:
    assert check_locale("locale", tag) == tag


@pytest.mark.parametrize("wrong", ["", "e", "EN", "xx", "en_US", "en-us", "en-XX", "en-US-posix", "../en", "en\n"])
def test_what_is_no_language(wrong: str) -> None:
    with pytest.raises(Invalid) as told:
        check_locale("locale", wrong)
    assert told.value.code == "unknown_locale"


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Asia/Kolkata"])
def test_time_zones(name: str) -> None:
    assert check_time_zone("time_zone", name) == name


@pytest.mark.parametrize("wrong", ["", "utc ", "Etc/Unknown", "Europe/Atlantis", "/etc/localtime", "+01:00"])
def test_what_is_no_time_zone(wrong: str) -> None:
    with pytest.raises(Invalid) as told:
        check_time_zone("time_zone", wrong)
    assert told.value.code == "unknown_time_zone"
