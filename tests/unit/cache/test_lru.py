"""The LRU table, compared with a plain list."""

from hypothesis import given
from hypothesis import strategies as st

from service.cache.lru import LruTable

STEPS = st.lists(st.tuples(st.sampled_from(["put", "get", "pop"]), st.integers(0, 5), st.integers(1, 6)), max_size=60)


@given(steps=STEPS, max_size=st.integers(0, 10))
def test_it_keeps_the_most_recently_used(steps: list[tuple[str, int, int]], max_size: int) -> None:
    """Within its bound, with correct sizes and evictions."""
    left: list[tuple[int, int]] = []
    table: LruTable[int, int] = LruTable(
        max_size, size_of=lambda _, value: value, on_leave=lambda key, value: left.append((key, value))
    )
    model: list[tuple[int, int]] = []
    gone: list[tuple[int, int]] = []
    evictions = 0
    for step, key, value in steps:
        held = next((pair for pair in model if pair[0] == key), None)
        if step == "get":
            assert table.get(key) == (held and held[1])
            model = model if held is None else [*(pair for pair in model if pair != held), held]
            continue
        if held is not None:
            model.remove(held)
            gone.append(held)
        if step == "pop":
            assert table.pop(key) == (held and held[1])
            continue
        assert table.put(key, value) is (value <= max_size)
        if value <= max_size:
            model.append((key, value))
        while sum(size for _, size in model) > max_size:
            gone.append(model.pop(0))
            evictions += 1
    assert list(table.items()) == model
    assert (len(table), table.size, table.evictions) == (len(model), sum(size for _, size in model), evictions)
    assert left == gone
    table.clear()
    assert (len(table), table.size) == (0, 0)


def test_the_least_recently_used_is_evicted() -> None:
    """The least recently used is evicted first."""
    table: LruTable[str, str] = LruTable(2)
    table.put("a", "1")
    table.put("b", "2")
    assert table.get("a") == "1"
    table.put("c", "3")
    assert [key for key, _ in table.items()] == ["a", "c"]
