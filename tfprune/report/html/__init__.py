"""The report as one HTML page: what it says, what it draws, and its template."""

from tfprune.report.html.page import page

__all__ = ["page"]
