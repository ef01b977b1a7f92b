# SPDX-License-Identifier: GPL-3.0-or-later
"""Moonraker's component klipperplace: [klipperplace] in moonraker.conf loads it. Imports what may be missing late: a ModuleNotFoundError at import
would make a source install of Moonraker reinstall its own requirements."""


def load_component(config):
    try:
        from .component import KlipperPlace
    except ImportError as e:
        raise config.error(f"[klipperplace]: the extension _kp cannot be loaded ({e}). Run scripts/install.sh of KlipperPlace again: it builds it.") from None
    return KlipperPlace(config)
