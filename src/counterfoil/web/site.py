"""All pages."""

from counterfoil.web.pages import pages

PAGES = [pages]
