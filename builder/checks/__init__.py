"""Tests of a running server with real speech."""
