"""Reading pages as a browser would: their elements, texts and forms."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx

_EMPTY = {"meta", "link", "input", "img", "br"}
_SCRIPTED = re.compile(r"on[a-z]+")


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


@dataclass
class Form:
    action: str
    fields: dict[str, str]
    buttons: list[str]


class Page(HTMLParser):
    """One page. Fails on HTML that is not well-formed."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(convert_charrefs=True)
        assert response.headers["content-type"] == "text/html; charset=utf-8", response.text
        self.url = str(response.url)
        self.status = response.status_code
        self.html = response.text
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.forms: list[Form] = []
        self.feed(response.text)
        self.close()
        assert not self._open, [element.tag for element in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        assert len(attributes) == len(attrs), f"an attribute twice in {tag}"
        element = Element(tag, attributes)
        self.elements.append(element)
        if tag == "form":
            self.forms.append(Form(urljoin(self.url, attributes["action"]), {}, []))
        if self.forms and any(one.tag == "form" for one in self._open):
            self._control(element)
        if tag not in _EMPTY:
            self._open.append(element)

    def _control(self, element: Element) -> None:
        form, given = self.forms[-1], element.attributes
        match element.tag, given.get("type", "text"):
            case "input", "radio" | "checkbox" if "checked" not in given:
                pass
            case "input", _:
                form.fields[given["name"]] = given.get("value", "")
            case "button", _ if "value" in given:
                form.buttons.append(given["value"])
            case _:
                pass

    def handle_endtag(self, tag: str) -> None:
        assert tag not in _EMPTY
        assert self._open.pop().tag == tag, tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.texts.append(data)

    @property
    def text(self) -> str:
        """All that a reader reads."""
        return next(element for element in self.elements if element.tag == "body").text

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Elements by tag and attributes; ``class_`` is one of the classes."""
        wanted_class = attributes.pop("class_", None)
        return [
            element
            for element in self.elements
            if element.tag == tag
            and all(element.attributes.get(name) == value for name, value in attributes.items())
            and (wanted_class is None or wanted_class in element.attributes.get("class", "").split())
        ]

    def one(self, tag: str, **attributes: str) -> Element:
        (only,) = self.all(tag, **attributes)
        return only

    @property
    def heading(self) -> str:
        return self.one("h1").text

    @property
    def form(self) -> Form:
        (only,) = self.forms
        return only

    @property
    def keys(self) -> list[str]:
        """The license keys it shows."""
        return [element.text for element in self.all("code", class_="key")]

    @property
    def links(self) -> list[str]:
        return [element.attributes["href"] for element in self.all("a")]

    def assert_inert(self, *more: str) -> None:
        """Nothing on the page runs, but our one script and ``more`` of ours; nothing is styled in place."""
        for script, name in zip(self.all("script"), ("app", *more), strict=True):
            assert re.fullmatch(rf"(/t/[a-z0-9-]+|/prefix)*/{name}\.js\?v=[0-9a-f]{{16}}", script.attributes["src"])
            assert not script.text
        for element in self.elements:
            assert element.tag not in {"iframe", "object", "embed", "base", "style", "svg"}
            assert not [name for name in element.attributes if _SCRIPTED.fullmatch(name) or name == "style"]
            for name in ("href", "src", "action"):
                assert not element.attributes.get(name, "").lower().startswith(("javascript:", "data:text"))
