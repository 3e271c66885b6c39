"""The report as one HTML page: what it says, what it draws, and its template."""

from tfprune.report.html.page import page
from tfprune.report.html.tickets import tickets_file

__all__ = ["page", "tickets_file"]
