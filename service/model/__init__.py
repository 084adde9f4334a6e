"""Queries, slices, blocks, tasks, freshness and errors: values and rules, without I/O and without a clock."""
