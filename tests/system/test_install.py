# SPDX-License-Identifier: GPL-3.0-or-later
"""scripts/install.sh in a home of its own, with a systemctl that only writes down what it was asked, a git checkout of the real Moonraker and the real build.

Invariant: what an uninstall leaves is what was there before the install, byte by byte.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rig

CONF = "[server]\nhost: 0.0.0.0\n\n[authorization]\ntrusted_clients:\n    127.0.0.0/8"  # no line end
SITE = Path(sys.prefix) / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"


def sh(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


class Home:
    """A home as a Pi has it, and a checkout of the project that holds what is committed and changed here."""

    def __init__(self, path):
        self.path, self.units, self.calls = path, path / "units", path / "calls"
        self.conf, self.data = path / "printer_data" / "config" / "moonraker.conf", path / "printer_data"
        for folder in ("printer_data/config", "printer_data/comms", "bin", "units", "moonraker-env/bin"):
            (path / folder).mkdir(parents=True)
        self.conf.write_text(CONF)
        (self.data / "moonraker.asvc").write_text("klipper_mcu\nwebcamd\n")
        (path / "bin" / "systemctl").write_text(f'#!/bin/sh\necho "$*" >> {self.calls}\n')
        (path / "bin" / "systemctl").chmod(0o755)
        (path / "bin" / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
        (path / "bin" / "sudo").chmod(0o755)
        (path / "moonraker-env" / "bin" / "python").symlink_to(rig.REPO / ".venv" / "bin" / "python")
        self.moonraker = path / "moonraker"
        shutil.copytree(SITE / "moonraker", self.moonraker / "moonraker", ignore=shutil.ignore_patterns("__pycache__"))
        sh("git", "init", "-q", self.moonraker)
        self.git(self.moonraker, "add", "-A")
        self.git(self.moonraker, "commit", "-qm", "Moonraker")
        self.extras = path / "klipper" / "klippy" / "extras"  # a Klipper is only looked at for this folder
        self.extras.mkdir(parents=True)
        (self.extras / "fan.py").write_text("pass\n")
        sh("git", "init", "-q", path / "klipper")
        self.git(path / "klipper", "add", "-A")
        self.git(path / "klipper", "commit", "-qm", "Klipper")
        self.repo = path / "KlipperPlace"
        for name in ("moonraker_ext", "scripts", "klipper_cfg"):
            shutil.copytree(rig.REPO / name, self.repo / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        built = self.repo / "build-install" / "moonraker_ext"
        built.mkdir(parents=True)
        shutil.copy(rig.build_dir() / "moonraker_ext" / "_kp.abi3.so", built)
        sh("git", "init", "-q", self.repo)
        self.git(self.repo, "remote", "add", "origin", "https://example.org/KlipperPlace.git")

    @staticmethod
    def git(folder, *args):
        return sh("git", "-C", folder, "-c", "user.name=t", "-c", "user.email=t@example.org", *args)

    def run(self, *args, good=True):
        env = {"HOME": str(self.path), "PATH": f"{self.path / 'bin'}:{os.environ['PATH']}", "KP_SYSTEMD_DIR": str(self.units), "LC_ALL": "C"}
        done = subprocess.run([self.repo / "scripts" / "install.sh", "--no-build", "--no-packages", *args], env=env, capture_output=True, text=True, timeout=300)
        assert (done.returncode == 0) == good, done.stdout + done.stderr
        return done.stdout + done.stderr

    def asked(self):
        """What systemctl was asked since the last time."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return lines

    def tree(self):
        """Everything but git's own and the record of calls: path -> content or link, and mode."""
        out = {}
        for folder, folders, files in os.walk(self.path):
            folders[:] = [f for f in folders if f not in (".git", "__pycache__")]
            for name in files + folders:
                p = Path(folder) / name
                if p == self.calls:
                    continue
                out[str(p.relative_to(self.path))] = os.readlink(p) if p.is_symlink() else (p.read_bytes() if p.is_file() else None, p.stat().st_mode)
        return out


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def test_install_and_back(home):
    before = home.tree()
    said = home.run()
    link = home.moonraker / "moonraker" / "components" / "klipperplace"
    assert link.is_symlink() and (link / "__init__.py").exists() and (link / "_kp.abi3.so").resolve().exists()
    for line in ("linked", "moonraker.conf", "klipperplace.cfg", "moonraker.asvc", "restarted moonraker"):
        assert line in said, said
    extra = home.extras / "klipperplace"
    assert f"linked {extra}" in said and (extra / "timing.py").samefile(home.repo / "klipper_cfg" / "extras" / "klipperplace" / "timing.py")
    conf = home.conf.read_text()
    for section in ("[klipperplace]", "[update_manager klipperplace]", "[webcam KlipperPlace]"):
        assert conf.count(section) == 1, conf
    assert conf.startswith(CONF + "\n") and (home.data / "moonraker.asvc").read_text() == "klipper_mcu\nwebcamd\nklipperplace\n"
    assert home.asked() == ["daemon-reload", "enable klipperplace.service", "restart klipperplace.service", "restart moonraker"]
    unit = home.units / "klipperplace.service"
    for line in ("Type=notify\n", "NotifyAccess=main\n", "WatchdogSec=30\n", "Restart=always\n", "NoNewPrivileges=yes", "ProtectSystem=strict", f"ReadWritePaths={home.repo} {home.data}", "CapabilityBoundingSet=\n"):
        assert line in unit.read_text()
    if shutil.which("systemd-analyze"):
        fake = home.units / "x.service"  # the same with a program that exists, which is all that verify would miss
        fake.write_text("\n".join("ExecStart=/bin/true" if line.startswith("ExecStart=") else line for line in unit.read_text().splitlines()) + "\n")
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", fake], capture_output=True, text=True)
        assert "Unknown" not in done.stderr and "Failed to parse" not in done.stderr, done.stderr
        fake.unlink()
    sample = (home.data / "config" / "klipperplace.cfg")
    assert f"\nmoonraker_socket: {home.data}/comms/moonraker.sock\n" in sample.read_text() and f"\ndatabase: {home.data}/klipperplace.db\n" in sample.read_text()
    assert sample.stat().st_mode & 0o077 == 0
    # Python finds it as Moonraker does
    found = sh(home.path / "moonraker-env" / "bin" / "python", "-c", "import moonraker.components.klipperplace as k; print(k.__file__)", cwd=home.moonraker,
               env={**os.environ, "PYTHONPATH": str(home.moonraker), "PYTHONDONTWRITEBYTECODE": "1"})
    assert str(home.moonraker) in found

    installed = home.tree()
    again = home.run()
    assert home.tree() == installed and "restarted moonraker" not in again and "wrote" not in again and "linked" not in again
    assert home.asked() == ["restart klipperplace.service"]

    # Moonraker's hard recovery, and Klipper's: nothing of ours is left in their checkouts
    for checkout in (home.moonraker, home.path / "klipper"):
        home.git(checkout, "reset", "-q", "--hard")
        home.git(checkout, "clean", "-qffdx")
    assert not link.is_symlink() and not extra.is_symlink()
    assert "linked" in home.run() and home.tree() == installed
    assert "restart moonraker" in home.asked()

    home.run("--uninstall")
    assert home.tree() == before
    assert home.asked() == ["disable --now klipperplace.service", "daemon-reload", "restart moonraker"]
    home.run("--uninstall")  # nothing there: nothing happens
    assert home.tree() == before


def test_what_people_wrote_stays(home):
    """Sections of their own are not doubled, a changed klipperplace.cfg and other links stay, and what stands behind our lines too."""
    home.conf.write_text(CONF + "\n\n[webcam KlipperPlace]\nservice: iframe\nstream_url: /else\n")
    theme = home.data / "config" / ".theme"
    theme.mkdir()
    (theme / "navi.json").write_text('[{"title": "Mine", "href": "/mine"}, {"title": "KlipperPlace", "href": "/server/klipperplace/panel"}]')
    home.run()
    assert home.conf.read_text().count("[webcam KlipperPlace]") == 1
    home.conf.write_text(home.conf.read_text() + "[history]\n")
    cfg = home.data / "config" / "klipperplace.cfg"
    cfg.write_text(cfg.read_text() + "[vacuum]\nretries: 1\n")
    assert "kept" in home.run("--uninstall")
    assert home.conf.read_text() == CONF + "\n\n[webcam KlipperPlace]\nservice: iframe\nstream_url: /else\n[history]\n"
    assert cfg.exists() and "/mine" in (theme / "navi.json").read_text() and "klipperplace" not in (theme / "navi.json").read_text()


def test_what_people_wrote_between_our_lines_stays(home):
    """An option of theirs in our section, through a second run; and nothing is cut where our last line is gone."""
    home.run()
    changed = home.conf.read_text().replace("config_file:", "panel: False\nconfig_file:")
    home.conf.write_text(changed)
    home.run()
    assert home.conf.read_text() == changed
    cut = changed[:changed.index("[webcam KlipperPlace]")] + "# <<< KlipperPlace\n[history]\n"
    home.conf.write_text(cut)
    home.run()
    assert home.conf.read_text().count("[webcam KlipperPlace]") == 1 and "panel: False" in home.conf.read_text()
    home.conf.write_text(broken := changed.replace("# <<< KlipperPlace\n", "[history]\n"))
    for words in ((), ("--uninstall",)):
        assert "without the last" in home.run(*words, good=False) and home.conf.read_text() == broken
    home.conf.write_text(changed)
    home.run("--uninstall")
    assert home.conf.read_text() == CONF


def test_uninstall_without_moonraker(home):
    """It was taken away first: all that is ours elsewhere still goes."""
    home.run()
    home.asked()
    shutil.rmtree(home.moonraker)
    (home.path / "moonraker-env" / "bin" / "python").unlink()
    assert "going on without it" in home.run("--uninstall")
    assert home.conf.read_text() == CONF and not (home.extras / "klipperplace").is_symlink() and not (home.units / "klipperplace.service").exists()
    assert home.asked() == ["disable --now klipperplace.service", "daemon-reload"]


READ_ONLY = """
for folder in /tmp /var/tmp; do mount --bind $folder $folder && mount -o remount,bind,ro $folder || exit 99; done
mount --bind "$1" "$1" && mount -o remount,bind,rw "$1" || exit 99
unset TMPDIR
cd "$1" && ! touch /tmp/x && exec scripts/build "$2"
"""


def test_build_needs_no_other_folder():
    """As the service runs it, which may write nowhere else, not even in /tmp."""
    done = subprocess.run(["unshare", "-m", "bash", "-c", READ_ONLY, "-", rig.REPO, rig.build_dir().name], capture_output=True, text=True, timeout=300)
    if done.returncode in (1, 99) and "mount" in done.stderr + "unshare":
        pytest.skip(f"no right to mount: {done.stderr}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_klipper_elsewhere_or_not_there(home):
    """The Klipper extra goes where --klipper says; without a Klipper there the rest is installed. Who takes it back is told what still names it."""
    elsewhere = home.path / "kalico"
    (home.path / "klipper").rename(elsewhere)
    assert "the Klipper extra is left out" in home.run() and (home.moonraker / "moonraker" / "components" / "klipperplace").is_symlink()
    extra = elsewhere / "klippy" / "extras" / "klipperplace"
    assert f"linked {extra}" in home.run("--klipper", str(elsewhere)) and extra.is_symlink()
    assert "restart moonraker" not in home.asked()[4:]  # Moonraker has nothing to do with it
    printer = home.data / "config" / "printer.cfg"
    printer.write_text("[printer]\n[klipperplace]\nlead: 0.1\n")
    said = home.run("--uninstall", "--klipper", str(elsewhere))
    assert not extra.is_symlink() and f"removed {extra}" in said and str(printer) in said and "take the sections out" in said
    extra.mkdir()  # somebody's own
    assert "move it away" in home.run("--klipper", str(elsewhere), good=False) and extra.is_dir() and home.conf.read_text() == CONF


def test_refusals(home):
    shutil.rmtree(home.moonraker)
    (home.path / "moonraker-env" / "bin" / "python").unlink()
    assert "Moonraker is not found" in home.run(good=False)
    assert "usage" in home.run("--nothing", good=False).lower() or "--uninstall" in home.run("--nothing", good=False)
    assert home.conf.read_text() == CONF


def test_a_folder_in_the_way(home):
    (home.moonraker / "moonraker" / "components" / "klipperplace").mkdir()
    assert "move it away" in home.run(good=False) and home.conf.read_text() == CONF


def test_moonraker_as_a_wheel(home):
    """Without a checkout the component is linked into the environment's own package."""
    site = home.path / "site"
    shutil.move(home.moonraker / "moonraker", site / "moonraker")
    shutil.rmtree(home.moonraker)
    python = home.path / "moonraker-env" / "bin" / "python"
    python.unlink()
    python.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {rig.REPO / ".venv" / "bin" / "python"} "$@"\n')
    python.chmod(0o755)
    home.run("--no-service")
    assert (site / "moonraker" / "components" / "klipperplace").is_symlink() and home.asked() == []
    home.run("--uninstall", "--no-service")
    assert not (site / "moonraker" / "components" / "klipperplace").is_symlink()
