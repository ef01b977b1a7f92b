# SPDX-License-Identifier: GPL-3.0-or-later
"""libkp as somebody else's library: what `meson install` leaves is enough to build the example in docs/examples, and it does what its golden file says.

tests/golden/examples holds a file of G-code, what Klipper gets for it (.klipper) and, for the one with a fault, the message (.err). Invariant: the
program under test sees the installed header, library and pkg-config file only.
"""
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

import rig

GOLDEN = rig.REPO / "tests" / "golden" / "examples"
SOURCE = rig.REPO / "docs" / "examples" / "gcode2klipper.c"


def output(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, **options).stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Installs into a folder; gives the environment in which pkg-config and the loader find it, and the library's folder."""
    root = tmp_path_factory.mktemp("installed")
    output("meson", "install", "-C", rig.build_dir(), "--no-rebuild", "--destdir", root)
    found = list(root.rglob("kp.pc"))
    assert len(found) == 1, f"one kp.pc wanted: {found}"
    folder = found[0].parent
    return dict(os.environ, PKG_CONFIG_LIBDIR=str(folder), PKG_CONFIG_SYSROOT_DIR=str(root), LD_LIBRARY_PATH=str(folder.parent)), folder.parent


def sanitizers():
    """The flags that a program of this build's library needs."""
    options = json.loads(output("meson", "introspect", "--buildoptions", rig.build_dir()))
    value = next(o["value"] for o in options if o["name"] == "b_sanitize")
    return [] if value == "none" else [f"-fsanitize={value}"]


def check_example(program, env=None):
    """The whole file; the file as one line after another from a pipe; the one with a fault, which ends there; no file."""
    whole = (GOLDEN / "board.klipper").read_text()
    assert output(program, GOLDEN / "board.gcode", env=env) == whole
    assert output(program, input=(GOLDEN / "board.gcode").read_text().replace("\n", "\r\n"), env=env) == whole
    bad = subprocess.run([program, GOLDEN / "bad.gcode"], capture_output=True, text=True, timeout=300, env=env)
    assert (bad.returncode, bad.stdout, bad.stderr) == (1, (GOLDEN / "bad.klipper").read_text(), (GOLDEN / "bad.err").read_text())
    assert subprocess.run([program, "/nowhere/at/all"], capture_output=True, timeout=300, env=env).returncode == 1


@pytest.mark.smoke
def test_example_in_the_tree():
    check_example(rig.build_dir() / "docs" / "examples" / "gcode2klipper")


@pytest.mark.smoke
def test_example_against_the_installed_library(installed, tmp_path):
    env, _ = installed
    flags = output("pkg-config", "--cflags", "--libs", "kp", env=env).split()
    program = tmp_path / "gcode2klipper"
    output("cc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", *sanitizers(), "-o", program, SOURCE, *flags, env=env)
    assert "libkp.so.0 " in output("ldd", program, env=env)
    check_example(program, env)


def test_size_of_the_example():
    assert len(SOURCE.read_text().splitlines()) <= 60


@pytest.mark.smoke
def test_exports(installed):
    """Everything that kp.h declares is there, and nothing else is. The file is libkp.so.VERSION; its name for the loader has the major number only."""
    env, folder = installed
    library = folder / "libkp.so"
    header = next(Path(env["PKG_CONFIG_SYSROOT_DIR"]).rglob("kp.h")).read_text()
    declared = set(re.findall(r"^KP_API [^;]*?\b(kp_\w+)\(", header, re.M))
    exported = {line.split()[-1] for line in output("nm", "-D", "--defined-only", library).splitlines()}
    assert len(declared) > 100
    assert exported == declared
    assert library.resolve().name == "libkp.so." + output("pkg-config", "--modversion", "kp", env=env).strip()
    assert "[libkp.so.0]" in output("readelf", "-d", library)


def test_page(tmp_path):
    """The code in docs/libkp.md compiles as it stands there, and the page names every object of the header."""
    page = (rig.REPO / "docs" / "libkp.md").read_text()
    code = "".join(re.findall(r"```c\n(.*?)```", page, re.S))
    assert code
    file = tmp_path / "page.c"
    file.write_text("#include <kp.h>\nbool send(const char *text, struct kp_error *e);\ndouble sample(struct kp_machine *m, int sensor);\n"
                    "void settle(struct kp_machine *m);\ndouble wait_until(int64_t ms);\n"
                    f"{code}\nint main(void)\n{{\n    struct kp_faults f = {{ 0 }};\n    return run(NULL, \"x\", NULL, 0, &f);\n}}\n")
    output("cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-c", "-I", rig.REPO / "libkp", "-o", tmp_path / "page.o", file)
    made = set(re.findall(r"^KP_API void (kp_\w+)_free\(", (rig.REPO / "libkp" / "kp.h").read_text(), re.M))
    assert made and not [name for name in made if f"`{name}`" not in page]


ALLOWED = set("""acos atan2 ceil cos fabs floor fmax fmin fmod hypot lround round sin sincos sqrt trunc
    aligned_alloc calloc free malloc realloc
    memchr memcmp memcpy memmove memset strchr strcmp strcspn strlen strncmp strrchr strspn strstr
    __assert_fail __cxa_finalize __gmon_start__ __stack_chk_fail _ITM_deregisterTMCloneTable _ITM_registerTMCloneTable""".split())


@pytest.mark.smoke
def test_asks_nobody():
    """No I/O, clock, environment, locale or threads: the library takes only memory, bytes and mathematics from outside, and keeps nothing between calls."""
    library = rig.build_dir() / "libkp" / "libkp.so"
    taken = {line.split()[-1].split("@")[0] for line in output("nm", "-D", "--undefined-only", library).splitlines()}
    assert not [name for name in taken - ALLOWED if not re.match(r"__(asan|ubsan|sanitizer)_|__gcov_", name)]
    if not sanitizers():
        sizes = {m[1]: int(m[2], 16) for m in re.finditer(r" \.(data|bss|tdata|tbss) +\w+ +\w+ +\w+ (\w+)", output("readelf", "-SW", library))}
        assert sizes and all(size <= 16 for size in sizes.values()), f"data that can be written: {sizes}"
