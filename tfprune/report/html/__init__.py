"""The report as one HTML page: a module for each section, and the template."""
