"""CloudWatch Logs' filter patterns: the examples of its documentation, and what users write."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.logs.patterns import FilterPattern, PatternError, parse_pattern

REQUESTS = (
    "[ERROR 400] BAD REQUEST",
    "[ERROR 401] UNAUTHORIZED REQUEST",
    "[ERROR 419] MISSING ARGUMENTS",
    "[ERROR 420] INVALID ARGUMENTS",
    "[ERROR 500] INTERNAL SERVER ERROR",
    "[INFO] REQUEST FAILED",
    "[SUCCESS 200] AUTHORIZED REQUEST",
)

TRAIL = """{
  "eventType": "UpdateTrail",
  "sourceIPAddress": "111.111.111.111",
  "arrayKey": ["value", "another value"],
  "objectList": [{"name": "a", "id": 1}, {"name": "b", "id": 2}],
  "SomeObject": null,
  "ThisFlag": true,
  "cluster.name": "c"
}"""

USERS = """{
  "user": {"id": 1, "email": "John.Stiles@example.com"},
  "users": [{"id": 2, "email": "John.Doe@example.com"}, {"id": 3, "email": "Jane.Doe@example.com"}],
  "actions": ["GET", "PUT", "DELETE"],
  "coordinates": [[0, 1, 2], [4, 5, 6], [7, 8, 9]]
}"""

APACHE = '127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534'


def matches(pattern: str, message: str) -> bool:
    return parse_pattern(pattern).matches(message)


def refusal(pattern: str) -> str:
    with pytest.raises(PatternError) as caught:
        parse_pattern(pattern)
    return str(caught.value)


# ---------------------------------------------------------------- terms


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", [0, 1, 2, 3, 4, 5, 6]),
        ("  ", [0, 1, 2, 3, 4, 5, 6]),
        ('" "', [0, 1, 2, 3, 4, 5, 6]),
        ("ERROR", [0, 1, 2, 3, 4]),
        ("error", []),
        ("ERROR ARGUMENTS", [2, 3]),
        ("ARGUMENTS ERROR", [2, 3]),
        ("ROR", [0, 1, 2, 3, 4]),
        ("?ERROR ?FAILED", [0, 1, 2, 3, 4, 5]),
        ("?MISSING", [2]),
        ('"INTERNAL SERVER ERROR"', [4]),
        ('"SERVER INTERNAL"', []),
        ('"[ERROR"', [0, 1, 2, 3, 4]),
        ("ERROR -ARGUMENTS", [0, 1, 4]),
        ('"ERROR" - "INTERNAL SERVER"', [0, 1, 2, 3]),
        ("-ERROR", [5, 6]),
        ("-ERROR -SUCCESS", [5]),
        # Terms with ? count for nothing beside others.
        ("?MISSING ?INVALID REQUEST", [0, 1, 5, 6]),
        ("?MISSING -ERROR", [5, 6]),
        ("%AUTHORIZED%", [1, 6]),
        ("%^.ERROR 4[0-9]{2}%", [0, 1, 2, 3]),
        ("%REQUEST$% -FAILED", [0, 1, 6]),
        ("ERROR -%4[12][0-9]%", [0, 1, 4]),
        ("?%500% ?%200%", [4, 6]),
    ],
)
def test_terms(pattern: str, expected: list[int]) -> None:
    assert [number for number, text in enumerate(REQUESTS) if matches(pattern, text)] == expected


def test_terms_take_letters_of_any_language_and_escaped_quotation_marks() -> None:
    assert matches("Größe", "die Größe")
    assert matches(r'"say \"hi\" \\o/"', 'he did say "hi" \\o/ to us')
    assert matches("exit-code v1.2", "exit-code of v1.2")
    assert matches('"a\\nb"', "a\\nb")


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("%^[hc]at%", "hat trick"),
        ("%[hc]at$%", "the cat"),
        ("%colou?r%", "color"),
        ("%a{3,5}%", "aaaa"),
        ("%^starting|^initializing|^shutting down%", "shutting down now"),
        (r"%\[.\]%", "value [7] here"),
        ("%ab*c%", "ac"),
        ("%.at%", "4at"),
        (r"%\d\D\s\S\w\W%", "1a bc!"),
        (r"%10\.10\.0\.1%", "from 10.10.0.1"),
        (r"%\x28\x29%", "call()"),
        (r"%a\\b\-c%", "a\\b-c"),
        ("%^.{3}$%", "aé€"),
        ("%^[^x]$%", "€"),
    ],
)
def test_regular_expressions(pattern: str, text: str) -> None:
    assert matches(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("user@example", "Invalid character(s) in term '@' at position 5: terms that have other characters than"),
        ("level=error", "in term '=' at position 6"),
        ("ERROR }", "in term '}' at position 7"),
        ('ERROR "INTERNAL', "the quotation mark at position 7 is never closed"),
        ('""', "in term '\"\"' at position 1"),
        ("a %bc", "the regular expression at position 3 is never closed"),
        ("ERROR -", "it ends too early, at position 8"),
        ("%something!%", "'!' at position 11 can't be used in a regular expression"),
        ("%(ab)+%", "'(' at position 2 can't be used"),
        (r"%a\(b%", r"'\(' at position 3 is no escape"),
        (r"%\p%", r"'\p' at position 2 is no escape"),
        ("%café%", "'é' at position 5 can't be used"),
        ("%%", "the regular expression at position 1 is empty"),
        ("%[a%", "the regular expression at position 1 can't be used: missing ]"),
        ("%a% %b% x %c%", "a pattern can have 2 regular expressions; there is one more at position 11"),
        ("x" * 1025, "it has 1025 characters; 1024 are allowed"),
    ],
)
def test_what_is_wrong_with_terms_is_said(pattern: str, said: str) -> None:
    assert said in refusal(pattern)


# ---------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    "pattern",
    [
        '{ $.eventType = "UpdateTrail" }',
        "{ $.eventType = UpdateTrail }",
        "{$.eventType=UpdateTrail}",
        "  { $.eventType = *Trail }  ",
        '{ $.eventType = "Up*Tr*l" }',
        '{ $.eventType = "*" }',
        "{ $.sourceIPAddress != 123.123.* }",
        '{ $.arrayKey[0] = "value" }',
        '{ $.arrayKey[*] = "another value" }',
        "{ $.arrayKey[*] = %val.{2}% }",
        "{ $.eventType = %Trail% }",
        "{ $.eventType != %^Trail% }",
        r"{ $.* = %111\.111\.111\.1[0-9]{1,2}% }",
        "{ $.['cluster.name'] = \"c\" }",
        "{ $['cluster.name'] = c }",
        '{ $["cluster.name"] = c }',
        "{ $.objectList[1].id = 2 }",
        "{ $.objectList[*].id = 2 }",
        "{ $.SomeObject IS NULL }",
        "{ $.ThisFlag IS TRUE }",
        "{ $.ThisFlag is true }",
        "{ $.SomeOtherObject NOT EXISTS }",
        "{ $.objectList[2] NOT EXISTS }",
        "{ $.eventType = x || ($.ThisFlag IS TRUE && $.SomeObject IS NULL) }",
    ],
)
def test_json(pattern: str) -> None:
    assert matches(pattern, TRAIL)


@pytest.mark.parametrize(
    "pattern",
    [
        "{ $.eventType = updatetrail }",
        "{ $.sourceIPAddress != 111.111.* }",
        '{ $.arrayKey[1] = "value" }',
        '{ $.arrayKey[7] = "value" }',
        # What selects an array, an object, null, a boolean or nothing compares with nothing.
        '{ $.arrayKey = "value" }',
        '{ $.arrayKey != "value" }',
        "{ $.objectList[0] != x }",
        "{ $.SomeObject = * }",
        "{ $.ThisFlag = true }",
        "{ $.missing != x }",
        "{ $.eventType.deeper = x }",
        "{ $.eventType[0] = U }",
        "{ $.ThisFlag IS FALSE }",
        "{ $.eventType IS NULL }",
        "{ $.missing IS NULL }",
        "{ $.SomeObject NOT EXISTS }",
        "{ $.eventType > 5 }",
    ],
)
def test_json_that_does_not_match(pattern: str) -> None:
    assert not matches(pattern, TRAIL)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{ ($.user.id = 1) && ($.users[0].email = "John.Doe@example.com") }', True),
        ('{ $.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = x && $.actions[2] = x }', True),
        ('{ ($.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = x) && $.actions[2] = x }', False),
        ('{ ($.user.id = 2 && $.users[0].email = "nonmatch") || $.actions[2] = "GET" }', False),
        ("{ $.coordinates[1][2] = 6 }", True),
        ("{ $.coordinates[*][0] = 7 }", True),
        ("{ ((($.user.id = 1))) }", True),
    ],
)
def test_json_conditions_are_joined_as_documented(pattern: str, expected: bool) -> None:
    assert matches(pattern, USERS) is expected


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ("> 75", 80, True),
        ("> 75", 75, False),
        (">= 75", 75.0, True),
        ("< 50", 49.5, True),
        ("<= 5", 6, False),
        ("= 400", 400, True),
        ("= 400", 400.0, True),
        ("= 400", "400", True),
        ("= 400", "0400", True),
        ('= "400"', 400, True),
        ('= "400"', "0400", False),
        ("!= 500", 400, True),
        ("!= 500", "none", True),
        ("= 1e+3", 1000, True),
        ("= 1E-3", 0.001, True),
        ("> +1000", 1001, True),
        ("> -.5", 0, True),
        ("= 4*", 404, True),
        ("= 4*", 504, False),
        ("= *.5", 2.5, True),
        ("> 10", "11", True),
        ("> 10", "many", False),
        ("> 10", "nan", False),
        ("= 12345678901234567890", 12345678901234567890, True),
        ("= 12345678901234567891", 12345678901234567890, False),
        ("= %^4..$%", 404, True),
        ("= ec2.amazonaws.com", "ec2.amazonaws.com", True),
        ("= */path?q", "x/path?q", True),
        ("= a*b*c", "a-b-c", True),
        ("= a*b*c", "a-c-b", False),
        ("= ab*ba", "aba", False),
        ("= *a*", "bab", True),
        ("= a**b", "ab", True),
    ],
)
def test_values_are_compared(condition: str, value: str | float, expected: bool) -> None:
    assert matches(f"{{ $.v {condition} }}", msgspec.json.encode({"v": value}).decode()) is expected


@pytest.mark.parametrize(
    "message", ["", "not json", 'INFO {"v": 1}', '{"v": 1', "1", "[" * 5000, '{"v": 1e999}', '{"v": NaN}', "[]", "null"]
)
def test_what_is_no_json_object_never_matches(message: str) -> None:
    assert not matches("{ $.v = * }", message)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("{ $.a = }", "unexpected '}' at position 9; expected a value"),
        ("{ $.a }", "at position 7; expected an operator"),
        ("{ $.a = 1", "it ends too early, at position 10; expected '}'"),
        ("{ $.a = 1 } more", "unexpected 'more' at position 13"),
        ("{ a = 1 }", "unexpected 'a' at position 3; expected a selector"),
        ("{ $.a == 1 }", "unexpected '=' at position 8; expected a value"),
        ("{ $.a = 1 && }", "expected a selector"),
        ("{ ($.a = 1 }", "unexpected '}' at position 12; expected ')'"),
        ("{ $.a IS MAYBE }", "expected NULL, TRUE or FALSE"),
        ("{ $.a IS NOT NULL }", "expected NULL, TRUE or FALSE"),
        ("{ $.a EXISTS }", "unexpected 'EXISTS' at position 7"),
        ("{ $.a[x] = 1 }", "unexpected '[x]' at position 6"),
        ('{ $.a = "x }', "unexpected '\"x' at position 9"),
        ("{ $.a > x }", "> at position 7 needs a number right of it, not x"),
        ("{ $.a < 4* }", "needs a number"),
        ("{ $.a > %1% }", "needs a number"),
        ("{ $.*[*] = a }", "the selector at position 3 has more than one *"),
        ("{ $.a[*]=1 || $.b[*]=1 || $.c[*]=1 || $.d[*]=1 }", "3 selectors with *; there is one more at position 39"),
        ("{ $.a = %x% || $.b = %y% || $.c = %z% }", "2 regular expressions; there is one more at position 35"),
        ("{ $.a = %x!% }", "'!' at position 11 can't be used"),
        ("{}", "expected a selector"),
        ("{", "it ends too early"),
    ],
)
def test_what_is_wrong_with_json_patterns_is_said(pattern: str, said: str) -> None:
    assert said in refusal(pattern)


# ---------------------------------------------------------------- fields


@pytest.mark.parametrize(
    "pattern",
    [
        "[]",
        "[ip, user, username, timestamp, request =*.html*, status_code = 4*, bytes]",
        "[..., request =*.html*, status_code = 4*, bytes]",
        "[..., request=*.html*, status_code=4*,]",
        "[ip, user, username, timestamp, request =*.html*, status_code = 404 || status_code = 410, bytes]",
        "[ip, user, username, timestamp, request, status_code = 4* && status_code != 403, bytes > 1000]",
        r"[ip=%127\.0\.0\.[1-9]%, user, username, timestamp, request =*.html*, status_code = 4*, bytes]",
        '[..., request="GET /index.html HTTP/1.0", status_code, bytes]',
        "[ip, ..., bytes]",
        "[ip, user, ...]",
        "[...]",
        "[ip, ..., timestamp=10/Oct/*, request, status, bytes = 1534]",
        "[ip, user, rest]",
        "[ip, , name=frank, ...]",
        "[..., (status >= 400 && status < 500) || status = 599, bytes]",
        "[a,b,c,d,e,f,...,g]",
    ],
)
def test_fields(pattern: str) -> None:
    assert matches(pattern, APACHE)


@pytest.mark.parametrize(
    "pattern",
    [
        "[a, b, c, d, e, f, g, h]",
        "[a, b, c, d, e, f, g, h, ...]",
        "[a,b,c,d,e,f,g,...,h]",
        "[..., status_code=200, size]",
        "[ip, user=prod, ...]",
        "[..., bytes > 2000]",
        "[..., bytes != 1534]",
        "[ip=127.0.0.1]",
        "[ip > 100, ...]",
    ],
)
def test_fields_that_do_not_match(pattern: str) -> None:
    assert not matches(pattern, APACHE)


def test_without_an_ellipsis_the_last_field_takes_the_rest() -> None:
    failed = "ERROR 09/25/2014 12:00:02 Failed to process request"
    assert matches("[w1=ERROR, w2]", failed)
    assert matches("[w1=ERROR || W1=WARNING, w2]", failed)
    assert matches("[level, rest=*process*]", failed)
    assert not matches("[w1!=ERROR && w1!=WARNING, w2]", failed)
    assert not matches("[w1=ERROR]", failed)
    assert not matches("[w1=ERROR, w2]", "ERROR")
    assert parse_pattern("[level, date, rest]").extract(failed + " ")["$rest"] == "12:00:02 Failed to process request"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (
            "[ip, user, username, timestamp, request =*.html*, status_code = 4*, bytes]",
            "$ip $user $username $timestamp $request $status_code $bytes",
        ),
        ("[..., size]", "$1 $2 $3 $4 $5 $6 $size"),
        ("[ip, ..., size]", "$ip $2 $3 $4 $5 $6 $size"),
        ("[]", "$1 $2 $3 $4 $5 $6 $7"),
        ("[..., request=*.html*, status_code=4*,]", "$1 $2 $3 $4 $request $status_code $7"),
    ],
)
def test_extracted_fields(pattern: str, expected: str) -> None:
    values = ["127.0.0.1", "Prod", "frank", "10/Oct/2000:13:25:15 -0700", "GET /index.html HTTP/1.0", "404", "1534"]
    assert parse_pattern(pattern).extract(APACHE) == dict(zip(expected.split(), values, strict=True))


def test_other_patterns_extract_nothing() -> None:
    assert parse_pattern("GET").extract(APACHE) == {}
    assert parse_pattern("{ $.user.id = 1 }").extract(USERS) == {}


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("[a, b", "it ends too early, at position 6"),
        ("[a, b] more", "unexpected 'more' at position 8"),
        ("[a b]", "unexpected 'b]' at position 4"),
        ("[1a]", "at position 2; expected a field's name"),
        ("[a = ]", "unexpected ']' at position 6; expected a value"),
        ("[a = 1 ||]", "expected a field's name"),
        ("[a, ..., b, ..., c]", "a pattern can have one ellipsis (...), but has 2"),
        ("[a, b=x || c=y]", "must name that field: c at position 12 is not b"),
        ("[a=%x%, b=%y%, c=%z%]", "2 regular expressions; there is one more at position 18"),
        ("[a > x]", "> at position 4 needs a number right of it, not x"),
    ],
)
def test_what_is_wrong_with_fields_is_said(pattern: str, said: str) -> None:
    assert said in refusal(pattern)


# ---------------------------------------------------------------- any pattern, any message

_PIECES = [
    *"{}[]()$<>=,?-+*%'\"\\\n aé1",
    *(
        "$.a",
        "$.a[0]",
        "$.a[*]",
        ".*",
        "['k']",
        "!=",
        ">=",
        "<=",
        "&&",
        "||",
        "...",
        "x*",
        "-2.5e3",
        '"q"',
        "%r%",
        "%[%",
    ),
    *(" IS ", " NOT ", " NULL ", " TRUE ", " EXISTS ", '\\"'),
]
_patterns = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(_PIECES), max_size=40).map("".join))
_messages = st.one_of(
    st.text(),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abk"), inner, max_size=3),
    ).map(lambda value: msgspec.json.encode(value).decode()),
)


def _parsed(pattern: str) -> FilterPattern | None:
    try:
        return parse_pattern(pattern)
    except PatternError:
        return None


@given(_patterns, _messages)
def test_any_pattern_is_parsed_or_refused_and_tests_any_message(pattern: str, message: str) -> None:
    for text in (pattern, f"{{ {pattern} }}", f"[{pattern}]", f"{{ $.a {pattern} }}", f"%{pattern}%"):
        parsed = _parsed(text)
        if parsed is not None:
            assert parsed.matches(message) in (True, False)
            assert not parsed.matches(message) or isinstance(parsed.extract(message), dict)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4), st.text())
def test_quoted_phrases_are_found_where_they_are(phrases: list[str], message: str) -> None:
    quoted = ['"' + phrase.replace("\\", "\\\\").replace('"', '\\"') + '"' for phrase in phrases]
    assert matches(" ".join(quoted), message) == all(phrase.isspace() or phrase in message for phrase in phrases)


@pytest.mark.parametrize(
    "message", ['[ "' * 300_000, '"a" ' * 200_000, "[a b " * 200_000, '{"a":' * 200_000, "aaaa" * 250_000 + "b"]
)
@pytest.mark.parametrize(
    "pattern", ["[..., a=*x*y*z]", "[]", "{ $.a = *x }", "%a*a*a*a*a*a*b$%", '"' + "a" * 900 + 'b"', "{ $.a[*] = %x% }"]
)
def test_no_message_takes_more_than_linear_time(pattern: str, message: str) -> None:
    """Quadratic work on a megabyte would take minutes."""
    assert matches(pattern, message) in (True, False)


@pytest.mark.parametrize(
    "pattern",
    [
        "{" + "(" * 1000,
        "{" + "(" * 250 + "$.a=1" + ")" * 250 + "}",
        "{" + "($.a=1||$.b=2&&" * 60 + "$.a=1" + ")" * 60 + "}",
        "[" + "," * 1000 + "]",
        "-" * 1000,
        "%" + "a*" * 400 + "%",
        "%" + "a{999}" * 150 + "%",
    ],
)
def test_odd_long_patterns_end_fast(pattern: str) -> None:
    parsed = _parsed(pattern)
    assert parsed is None or parsed.matches('{"a":1}') in (True, False)
