"""Turns the files of a finished run into tables, charts and one self-contained HTML page."""
