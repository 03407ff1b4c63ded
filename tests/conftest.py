"""Fixtures for every test below."""

pytest_plugins = ["tests.support.nats"]
