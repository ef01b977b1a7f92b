#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs KlipperPlace beside Klipper and Moonraker on a Pi, or takes it back. Says each thing that it does; may be run again at any time: what is there stays.
# Run it as the user that Moonraker runs as; it asks for root by sudo only for packages and the systemd unit.
#   scripts/install.sh [options]
#     --uninstall          takes back all that an install did; files that somebody changed since are kept and named
#     --moonraker DIR      Moonraker's git checkout (default ~/moonraker; without one, the wheel in its environment)
#     --env DIR            Moonraker's Python environment (default ~/moonraker-env)
#     --data DIR           Moonraker's data folder (default ~/printer_data)
#     --klipper DIR        Klipper's checkout (default ~/klipper); the extra for it is linked there and does nothing before printer.cfg names it
#     --no-packages        Debian packages are there already
#     --no-build           the build is there already
#     --no-service         no systemd unit: klipperplaced is started otherwise
set -euo pipefail
cd "$(dirname "$0")/.."

REPO=$PWD
BUILD=build-install
MOONRAKER=$HOME/moonraker ENV=$HOME/moonraker-env DATA=$HOME/printer_data KLIPPER=$HOME/klipper
UNITS=${KP_SYSTEMD_DIR:-/etc/systemd/system}   # the tests have one of their own
UNIT=klipperplace.service   # named as the section [update_manager klipperplace]: it manages no other
PACKAGES=(gcc libc6-dev meson ninja-build pkg-config libmicrohttpd-dev libwebsockets-dev libjansson-dev libsqlite3-dev python3-dev)
BEGIN="# >>> KlipperPlace: scripts/install.sh wrote this and takes it back" END="# <<< KlipperPlace"
NO_END="# no line end stood before these lines"
what=install packages=yes build=yes service=yes restart=no

say() { echo "install: $*"; }
die() { echo "install: $*" >&2; exit 1; }

root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else die "this needs root, and sudo is not here: $*"
    fi
}

while [ $# -gt 0 ]; do
    case $1 in
        --uninstall) what=uninstall ;;
        --moonraker) MOONRAKER=${2:?}; shift ;;
        --env) ENV=${2:?}; shift ;;
        --data) DATA=${2:?}; shift ;;
        --klipper) KLIPPER=${2:?}; shift ;;
        --no-packages) packages=no ;;
        --no-build) build=no ;;
        --no-service) service=no ;;
        *) sed -n '3,14s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
case $REPO$DATA in *[[:space:]\"%\\]*) die "a folder's name has a blank, a quote, a % or a backslash: $REPO, $DATA" ;; esac
EXTRA=$KLIPPER/klippy/extras/klipperplace
CONF=$DATA/config/moonraker.conf ASVC=$DATA/moonraker.asvc CFG=$DATA/config/klipperplace.cfg

# Where Moonraker keeps its components: asked of the Python that runs it.
components() {
    local path=""
    [ -d "$MOONRAKER/moonraker/components" ] && path=$MOONRAKER
    PYTHONPATH=$path PYTHONDONTWRITEBYTECODE=1 "$ENV/bin/python" -c 'import moonraker.components as c; print(list(c.__path__)[0])' 2>/dev/null ||
        die "Moonraker is not found: neither in $MOONRAKER nor by $ENV/bin/python; see --moonraker and --env"
}

# write FILE: its new text from standard input, at once and with the old file's mode.
write() {
    local new=$1.klipperplace-new
    if [ -e "$1" ]; then cp -p "$1" "$new"; fi
    cat > "$new"
    mv "$new" "$1"
}

# ---- install

install_packages() {
    local missing=()
    for p in "${PACKAGES[@]}"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing packages: ${missing[*]}"
    root env DEBIAN_FRONTEND=noninteractive apt-get -q update >/dev/null
    root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${missing[@]}" >/dev/null
}

link() { # TARGET LINK; false when it was there
    if [ -L "$2" ] && [ "$(readlink "$2")" = "$1" ]; then return 1; fi
    if [ -e "$2" ] && [ ! -L "$2" ]; then die "$2 is there and no link of ours: move it away first"; fi
    ln -sfn "$1" "$2" || die "$2 cannot be linked"
    say "linked $2"
}

# Klipper loads it when printer.cfg has [klipperplace], so nothing need be restarted for it.
link_extra() {
    if [ -d "${EXTRA%/*}" ]; then link "$REPO/klipper_cfg/extras/klipperplace" "$EXTRA" || true
    else say "${EXTRA%/*} is not there: the Klipper extra is left out; see --klipper"; fi
}

# The sample with Moonraker's socket and the database set: what the service reads, and where queue, history and keys outlive it.
our_cfg() {
    sed -e "s|^#* *moonraker_socket:.*|moonraker_socket: $DATA/comms/moonraker.sock|" -e "s|^#* *database:.*|database: $DATA/klipperplace.db|" \
        klipper_cfg/klipperplace.cfg
}

has_section() {
    grep -q "^\[$1\]" "$CONF"
}

# What stands between our lines, somebody's changes with it.
ours() {
    awk -v b="$BEGIN" -v e="$END" '$0 == e { exit } ours { print } $0 == b { ours = 1 }' "$CONF"
}

check_marks() {
    if [ -f "$CONF" ] && grep -qxF "$BEGIN" "$CONF" && ! grep -qxF "$END" "$CONF"; then
        die "$CONF has our first line without the last, \"$END\": nobody can say where our part ends. Put it back"
    fi
}

without_ours() {
    awk -v b="$BEGIN" -v e="$END" '$0 == b { skip = 1 } !skip { print } $0 == e { skip = 0 }'
}

our_sections() {
    local origin
    origin=$(git remote get-url origin 2>/dev/null || true)
    if ! has_section klipperplace; then printf '[klipperplace]\nconfig_file: %s\n\n' "$CFG"; fi
    if ! has_section "update_manager klipperplace" && [ -n "$origin" ]; then
        printf '[update_manager klipperplace]\ntype: git_repo\npath: %s\norigin: %s\nprimary_branch: main\nmanaged_services: klipperplace moonraker\n\n' "$REPO" "$origin"
    fi
    if ! has_section "webcam KlipperPlace"; then printf '[webcam KlipperPlace]\nlocation: printer\nservice: iframe\nstream_url: /server/klipperplace/panel\naspect_ratio: 16:9\n'; fi
}

edit_conf() {
    [ -f "$CONF" ] || die "$CONF is not there; see --data"
    local new=$CONF.klipperplace-try
    ours > "$new.ours"
    if [ -n "$(tail -c 1 "$CONF")" ]; then echo "$NO_END" >> "$new.ours"; fi
    our_sections > "$new.more"
    if [ -s "$new.more" ] && grep -q '^\[' "$new.ours"; then echo >> "$new.ours"; fi
    { without_ours < "$CONF"; echo "$BEGIN"; cat "$new.ours" "$new.more"; echo "$END"; } > "$new"
    rm "$new.ours" "$new.more"
    if cmp -s "$new" "$CONF"; then rm "$new"; return; fi
    write "$CONF" < "$new"
    rm "$new"
    say "wrote our sections into $CONF"
    restart=yes
}

add_asvc() {
    if [ -f "$ASVC" ] && ! grep -qx klipperplace "$ASVC"; then
        if [ -n "$(tail -c 1 "$ASVC")" ]; then echo >> "$ASVC"; fi
        echo klipperplace >> "$ASVC"
        say "allowed klipperplace in $ASVC"
    fi
}

unit_text() {
    cat <<UNIT
# Written by scripts/install.sh of KlipperPlace.
[Unit]
Description=KlipperPlace: pick-and-place interface beside Moonraker
After=network-online.target moonraker.service
Wants=network-online.target moonraker.service
# However often it ends: an address that comes late, or a mistake in klipperplace.cfg that is mended, is no reason to stay down.
StartLimitIntervalSec=0

[Service]
# It says when its port is open and, by a timer of its loop, that the loop still turns. A look-up of moonraker_host that no name server answers may
# hold the loop for some 20 s: the watchdog waits longer.
Type=notify
NotifyAccess=main
WatchdogSec=30
User=$(id -un)
# Moonraker's update manager runs no build: what it pulled is built here. An old build is better than none.
ExecStartPre=-$REPO/scripts/build $BUILD
ExecStart=$REPO/$BUILD/shim/klipperplaced --config $CFG
Restart=always
RestartSec=1
TimeoutStartSec=300
TimeoutStopSec=10
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths=$REPO $DATA
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
MemoryMax=256M

[Install]
WantedBy=multi-user.target
UNIT
}

add_unit() {
    local unit=$UNITS/$UNIT
    if [ -f "$unit" ] && [ "$(cat "$unit")" = "$(unit_text)" ]; then
        root systemctl restart "$UNIT"
        return
    fi
    unit_text | root tee "$unit" >/dev/null
    root systemctl daemon-reload
    root systemctl enable "$UNIT"
    root systemctl restart "$UNIT"
    say "added and started $unit"
}

install() {
    local place
    place=$(components)
    check_marks
    [ "$packages" = no ] || install_packages
    if [ "$build" = yes ]; then
        say "building in $BUILD (minutes on a Pi, the first time)"
        scripts/build "$BUILD" --buildtype=release -Dtests=false
    fi
    [ -f "$BUILD/moonraker_ext/_kp.abi3.so" ] || die "$BUILD/moonraker_ext/_kp.abi3.so is missing: run without --no-build"
    if link "$REPO/$BUILD/moonraker_ext/_kp.abi3.so" "$REPO/moonraker_ext/klipperplace/_kp.abi3.so"; then restart=yes; fi
    if link "$REPO/moonraker_ext/klipperplace" "$place/klipperplace"; then restart=yes; fi
    link_extra
    if [ ! -e "$CFG" ]; then
        (umask 077; our_cfg > "$CFG")
        say "wrote $CFG: describe your machine there"
    fi
    edit_conf
    add_asvc
    if [ "$service" = yes ]; then
        add_unit
        if [ "$restart" = yes ]; then
            root systemctl restart moonraker
            say "restarted moonraker"
        fi
    fi
    say "done"
}

# ---- uninstall

uninstall() {
    local place
    check_marks
    if ! place=$(components); then place= && say "going on without it"; fi
    if [ -f "$UNITS/$UNIT" ] && [ "$service" = yes ]; then
        root systemctl disable --now "$UNIT"
        root rm "$UNITS/$UNIT"
        root systemctl daemon-reload
        say "removed $UNITS/$UNIT"
    fi
    if [ -n "$place" ] && [ -L "$place/klipperplace" ]; then rm "$place/klipperplace"; say "removed $place/klipperplace"; fi
    rm -f moonraker_ext/klipperplace/_kp.abi3.so
    if [ -L "$EXTRA" ]; then
        rm "$EXTRA"
        say "removed $EXTRA"
        ! grep -lE '^\[(klipperplace|pnp_sensor .*)\]' "$DATA"/config/*.cfg 2>/dev/null || say "Klipper will not start with [klipperplace] or [pnp_sensor ...] in these: take the sections out"
    fi
    if [ -f "$CONF" ] && grep -qxF "$BEGIN" "$CONF"; then
        if ours | grep -qxF "$NO_END"; then without_ours < "$CONF" | head -c -1 | write "$CONF"
        else without_ours < "$CONF" | write "$CONF"; fi
        say "took our sections out of $CONF"
    fi
    if [ -f "$ASVC" ] && grep -qx klipperplace "$ASVC"; then
        grep -vx klipperplace "$ASVC" | write "$ASVC" || true
        say "took klipperplace out of $ASVC"
    fi
    if [ -f "$CFG" ] && [ "$(cat "$CFG")" = "$(our_cfg)" ]; then
        rm "$CFG"
    elif [ -f "$CFG" ]; then
        say "kept $CFG, which is yours by now"
    fi
    remove_link
    if [ "$service" = yes ] && [ -n "$place" ]; then root systemctl restart moonraker; fi
    say "done"
}

# Mainsail's sidebar: our entry alone.
remove_link() {
    local navi=$DATA/config/.theme/navi.json
    [ -f "$navi" ] || return 0
    python3 - "$navi" <<'PYTHON' && say "took our link out of $navi" || say "kept $navi: it is no list of links"
import json, os, sys
path = sys.argv[1]
links = json.load(open(path, encoding="utf-8"))
others = [l for l in links if not (isinstance(l, dict) and l.get("href") == "/server/klipperplace/panel")]
if not others and len(links) == 1:
    os.remove(path)
    if not os.listdir(os.path.dirname(path)):
        os.rmdir(os.path.dirname(path))
elif others != links:
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump(others, f, indent=2)
        f.write("\n")
    os.replace(path + ".new", path)
PYTHON
}

[ "$(type -t "$what")" = function ]
"$what"
