"""The functions of queries over single values. Pure; none of them raises: what can't be computed is None."""

import ipaddress
import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from controlplane.logs.insights.syntax import Period
from controlplane.logs.insights.values import Instant, ceiling, floor, number_of, shown, truth

__all__ = ["FUNCTIONS", "Function", "arithmetic"]

#: Beyond it whole numbers become floats, so that no product can grow without end.
_BIG: Final = 2**63
#: The longest text that a function makes, in characters.
_MAX_TEXT: Final = 1024 * 1024


class Function(NamedTuple):
    """A function and how many arguments it takes; `most` None: any number."""

    call: Callable[..., Any]
    least: int
    most: int | None


def arithmetic(operator: str, left: Any, right: Any) -> int | float | None:
    """Return `left` operator `right`; None if one is no number, or there is no finite result."""
    a, b = number_of(left), number_of(right)
    if a is None or b is None:
        return None
    try:
        result: Any = _OPERATORS[operator](a, b)
    except (ArithmeticError, ValueError):
        return None
    return _finite(result)


def _finite(result: Any) -> int | float | None:
    if isinstance(result, complex) or (isinstance(result, float) and not math.isfinite(result)):
        return None
    if isinstance(result, int) and not -_BIG <= result <= _BIG:
        return float(result)
    # An Instant less an Instant, or any other, is a number.
    return int(result) if isinstance(result, int) else float(result)


_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    # As in most languages of logs, the result has the sign of what is divided.
    "%": math.fmod,
    "^": lambda a, b: float(a) ** b,
}


def _numeric(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call(value: Any) -> Any:
        number = number_of(value)
        if number is None:
            return None
        try:
            return _finite(function(number))
        except (ArithmeticError, ValueError):
            return None

    return call


def _choice(choose: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    def call(*values: Any) -> Any:
        numbers = [number for number in map(number_of, values) if number is not None]
        return choose(numbers) if numbers else None

    return call


def _text(function: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else function(shown(value))


def _trim(strip: Callable[[str, str | None], str]) -> Callable[..., Any]:
    def call(value: Any, characters: Any = None) -> Any:
        return None if value is None else strip(shown(value), None if characters is None else shown(characters))

    return call


def _substr(value: Any, start: Any, length: Any = None) -> Any:
    begin = number_of(start)
    if value is None or begin is None:
        return None
    begin = max(int(begin), 0)
    count = number_of(length)
    return shown(value)[begin:] if count is None else shown(value)[begin : begin + max(int(count), 0)]


def _replace(value: Any, searched: Any, replacement: Any) -> Any:
    if value is None or searched is None or replacement is None:
        return None
    text, old, new = shown(value), shown(searched), shown(replacement)
    if not old:
        return text
    if len(text) + text.count(old) * (len(new) - len(old)) > _MAX_TEXT:
        return None
    return text.replace(old, new)


def _concat(*values: Any) -> Any:
    texts = [shown(value) for value in values]
    return "".join(texts) if sum(map(len, texts)) <= _MAX_TEXT else None


def _strcontains(value: Any, searched: Any) -> int:
    return int(value is not None and searched is not None and shown(searched) in shown(value))


def _rounded(round_to: Callable[[float, Period], Instant | None]) -> Callable[[Any, Period], Any]:
    def call(at: Any, period: Period) -> Any:
        moment = number_of(at)
        return None if moment is None else round_to(moment, period)

    return call


def _from_millis(value: Any) -> Any:
    millis = number_of(value)
    return None if millis is None else Instant(millis)


def _to_millis(value: Any) -> Any:
    millis = number_of(value)
    return None if millis is None else int(millis)


def _json_parse(value: Any) -> Any:
    if value is None:
        return None
    try:
        return msgspec.json.decode(shown(value))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _coalesce(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _case(*arguments: Any) -> Any:
    """Condition, value, condition, value, ..., and perhaps a last value for when none holds."""
    for condition, value in zip(arguments[0::2], arguments[1::2], strict=False):
        if truth(condition):
            return value
    return arguments[-1] if len(arguments) % 2 else None


def _address(value: Any) -> Any:
    try:
        return ipaddress.ip_address(shown(value).strip())
    except ValueError:
        return None


def _valid_ip(*versions: int) -> Callable[[Any], int]:
    def call(value: Any) -> int:
        address = _address(value)
        return int(address is not None and address.version in versions)

    return call


def _in_subnet(*versions: int) -> Callable[[Any, Any], int]:
    def call(value: Any, subnet: Any) -> int:
        address = _address(value)
        try:
            network = ipaddress.ip_network(shown(subnet).strip(), strict=False)
        except ValueError:
            return 0
        return int(address is not None and address.version in versions and address in network)

    return call


FUNCTIONS: Final[dict[str, Function]] = {
    # numbers
    "abs": Function(_numeric(abs), 1, 1),
    "ceil": Function(_numeric(math.ceil), 1, 1),
    "floor": Function(_numeric(math.floor), 1, 1),
    "log": Function(_numeric(math.log), 1, 1),
    "sqrt": Function(_numeric(math.sqrt), 1, 1),
    "greatest": Function(_choice(max), 1, None),
    "least": Function(_choice(min), 1, None),
    # texts
    "strlen": Function(_text(len), 1, 1),
    "toupper": Function(_text(str.upper), 1, 1),
    "tolower": Function(_text(str.lower), 1, 1),
    "trim": Function(_trim(str.strip), 1, 2),
    "ltrim": Function(_trim(str.lstrip), 1, 2),
    "rtrim": Function(_trim(str.rstrip), 1, 2),
    "substr": Function(_substr, 2, 3),
    "replace": Function(_replace, 3, 3),
    "concat": Function(_concat, 1, None),
    "strcontains": Function(_strcontains, 2, 2),
    "isempty": Function(lambda value: int(value is None or shown(value) == ""), 1, 1),
    "isblank": Function(lambda value: int(value is None or not shown(value).strip()), 1, 1),
    # times
    "datefloor": Function(_rounded(floor), 2, 2),
    "dateceil": Function(_rounded(ceiling), 2, 2),
    "frommillis": Function(_from_millis, 1, 1),
    "tomillis": Function(_to_millis, 1, 1),
    # any value
    "ispresent": Function(lambda value: int(value is not None), 1, 1),
    "coalesce": Function(_coalesce, 1, None),
    "if": Function(lambda condition, yes, no=None: yes if truth(condition) else no, 2, 3),
    "case": Function(_case, 2, None),
    "jsonparse": Function(_json_parse, 1, 1),
    "jsonstringify": Function(_text(str), 1, 1),
    # IP addresses
    "isvalidip": Function(_valid_ip(4, 6), 1, 1),
    "isvalidipv4": Function(_valid_ip(4), 1, 1),
    "isvalidipv6": Function(_valid_ip(6), 1, 1),
    "isipinsubnet": Function(_in_subnet(4, 6), 2, 2),
    "isipv4insubnet": Function(_in_subnet(4), 2, 2),
    "isipv6insubnet": Function(_in_subnet(6), 2, 2),
}
