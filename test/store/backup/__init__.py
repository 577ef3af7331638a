"""Tests of `darner.store.backup`."""
