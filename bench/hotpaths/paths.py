"""All the hot paths, the reference first."""

from bench.hotpaths.agent import FRAMES, LIFE, PLAN
from bench.hotpaths.api import DECODE, DESCRIBE_TASKS, PLACE, RUN_TASK
from bench.hotpaths.fleet import ASSIGN, REPORT
from bench.hotpaths.journal import JOURNAL
from bench.hotpaths.reference import REFERENCE

__all__ = ["PATHS"]

PATHS = (REFERENCE, DECODE, PLACE, RUN_TASK, DESCRIBE_TASKS, ASSIGN, REPORT, JOURNAL, FRAMES, LIFE, PLAN)
