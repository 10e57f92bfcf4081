"""The pages' routes."""

from litestar import Router

pages = Router(path="/", route_handlers=[])
