"""Small fakes behind our own seams, shared by all tests."""
