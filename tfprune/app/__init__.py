"""The application: every variant of a run answers side by side; needs the extra `app` to serve."""
