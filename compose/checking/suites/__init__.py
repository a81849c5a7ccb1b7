"""Suites: case files of every form, and the histories that their cases tell."""
