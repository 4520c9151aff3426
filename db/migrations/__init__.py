"""Migrations, oldest first. A release only expands the schema; what it no longer uses is dropped a release later, so that
two releases can run side by side.
"""
