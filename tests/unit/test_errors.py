from homeport.errors import ConfigurationError, leaves


def test_leaves_are_found_however_deeply_groups_are_nested() -> None:
    inner, outer = ConfigurationError("inner"), ValueError("outer")
    assert leaves(ExceptionGroup("", [ExceptionGroup("", [inner]), outer])) == [inner, outer]
    assert leaves(outer) == [outer]
