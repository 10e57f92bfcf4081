"""All pages."""

from counterfoil.web.accounts import account_pages
from counterfoil.web.pages import pages

PAGES = [pages, account_pages]
