"""The HTTP server: `create_app(settings, models)` in application.py, and the web page it serves."""
