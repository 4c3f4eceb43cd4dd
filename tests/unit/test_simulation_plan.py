"""The simulator's plans: drawn from a seed alone, and nothing is missing among them."""

from collections import Counter

import msgspec

from tests.simulation.plan import FAULTS, REQUEST, Machine, Plan, generate
from tests.simulation.workload import IMAGES, OPERATIONS

PLANS = [generate(seed) for seed in range(200)]


def test_a_seed_always_gives_the_same_plan() -> None:
    assert [generate(seed) for seed in range(20)] == PLANS[:20]
    assert len({plan.to_json() for plan in PLANS}) == len(PLANS)


def test_a_plan_goes_to_json_and_back() -> None:
    for plan in PLANS:
        assert Plan.from_json(plan.to_json()) == plan


def test_every_fault_operation_and_image_appears_within_200_seeds() -> None:
    acts = [act for plan in PLANS for act in plan.acts]
    assert set(FAULTS) | {REQUEST} == {act.kind for act in acts}
    assert {act.subject for act in acts if act.kind == REQUEST} == OPERATIONS
    documents = b"".join(plan.to_json() for plan in PLANS).decode()
    assert not [image for image in IMAGES if f'"{image}"' not in documents]


def test_sizes_and_moods_are_as_they_are_meant() -> None:
    moods = Counter(plan.settings.mood for plan in PLANS)
    assert set(moods) == {"calm", "single", "pair", "mixed", "storm"}
    for plan in PLANS:
        faults = [act for act in plan.acts if act.kind != REQUEST]
        assert 1 <= len(plan.hosts) <= 5
        assert 10 <= len(plan.acts) <= 70
        assert [act.at_s for act in plan.acts] == sorted(act.at_s for act in plan.acts)
        assert plan.acts[-1].at_s <= 600
        if plan.settings.mood == "single":
            assert len({act.kind for act in faults}) <= 1


def test_a_host_that_joins_is_a_machine() -> None:
    joining = [act for plan in PLANS for act in plan.acts if act.kind == "add_host"]
    for act in joining:
        assert msgspec.convert(act.arguments, Machine).name == act.subject
