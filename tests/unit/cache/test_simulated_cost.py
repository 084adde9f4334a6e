"""What ten simulated minutes cost, by policy."""

from tests.bench.simulate_cache import by_block, by_exact_page, requests, without_cache


def test_blocks_cost_the_fewest_calls() -> None:
    """In two minutes of 200 callers blocks cost less than half of what a cache by exact page does, and fit better."""
    asked = requests(seed=7, duration_s=120)
    none, page, block = without_cache(asked), by_exact_page(asked), by_block(asked)
    assert none.calls == len(asked) > 10_000
    assert block.calls < page.calls / 2
    assert none.unfit > page.unfit > block.unfit


def test_repeatable() -> None:
    """The same seed gives the same requests."""
    assert requests(seed=3, duration_s=5) == requests(seed=3, duration_s=5)
