# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the system tests: machines of rig.py, and their logs in the report of a test that fails."""
import pytest

import rig


@pytest.fixture(scope="module")
def machine():
    """A whole machine, shared by the tests of one file."""
    with rig.Rig() as r:
        yield r


@pytest.fixture
def fresh_machine():
    """A whole machine for this test alone."""
    with rig.Rig() as r:
        yield r


@pytest.fixture
def make_rig():
    """Makes and starts machines with options of their own: make_rig(strict=True)."""
    made = []

    def make(**options):
        made.append(rig.Rig(**options))
        return made[-1].start()

    yield make
    for r in reversed(made):
        if r in rig.LIVE:
            r.stop()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Adds the last lines of every running machine's logs to the report of a failure, and keeps their folders."""
    report = (yield).get_result()
    if report.failed:
        for r in rig.LIVE:
            r.keep = True
            report.sections.append((f"logs of {r.dir} (kept)", r.log_tails()))
