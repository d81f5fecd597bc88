"""The page of a server: its library, a map of its prompts, a box to try them, and a page for each prompt."""

from spoton.serving.page.routes import add_pages as add_pages
