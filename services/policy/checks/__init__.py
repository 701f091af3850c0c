"""The checks, one module each, and the table of them (`table.py`).

To add one: write a module with a coroutine `find(subject, means) -> Finding` and a `CHECK` that
names it; put `CHECK` into the table; add its name to `policy.actions` and, if it can be unable to
tell, to `policy.on_error`; give it rows in the tables of tests/unit/policy/.
"""
